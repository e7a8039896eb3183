// Plans a program for the shapes at hand, and runs it.
#include "program.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <utility>

#include "../turn.h"
#include "arena.h"
#include "call_memory.h"
#include "chain.h"
#include "group.h"
#include "team.h"

namespace sepconv::program {
namespace {

// The dtypes of inputs that a kind of step takes, a bit each; as in
// src/sepconv/program/dtypes.py.
constexpr unsigned bit(DType dtype) { return 1u << static_cast<int>(dtype); }
constexpr unsigned kCast = bit(DType::f32) | bit(DType::bf16), kFloats = kCast | bit(DType::f64),
                   kBytes = bit(DType::u8), kAny = kFloats | kBytes;

constexpr struct {
  const char* operation;
  int least, most;  // inputs
  unsigned takes;   // dtypes
  StepMaker make;
} kOperations[] = {
    {"convolution", 1, 2, kFloats, make_convolution},
    {"dense", 1, 2, kFloats, make_dense},
    {"scale", 1, 1, kFloats, make_scale},
    {"unary", 1, 1, kFloats, make_unary},
    {"binary", 2, 2, kFloats, make_binary},
    {"pool", 1, 1, kAny, make_pool},
    {"reduce", 1, 1, kFloats, make_reduce},
    {"concatenate", 1, 256, kAny, make_concatenate},
    {"pad", 1, 1, kAny, make_pad},
    {"slice", 1, 1, kAny, make_slice},
    {"transpose", 1, 1, kAny, make_transpose},
    {"reshape", 1, 1, kAny, make_reshape},
    {"resize", 1, 1, kAny, make_resize},
    {"layer_normalization", 1, 1, kFloats, make_layer_normalization},
    {"softmax", 1, 1, kFloats, make_softmax},
    {"constant", 0, 0, kAny, make_constant},
    {"cast", 1, 1, kCast, make_cast},
    {"quantize", 1, 1, bit(DType::f32), make_quantize},
    {"dequantize", 1, 1, kBytes, make_dequantize},
    {"quantized_convolution", 1, 2, kBytes, make_quantized_convolution},
    {"quantized_dense", 1, 1, kBytes, make_quantized_dense},
    {"quantized_binary", 2, 2, kBytes, make_quantized_binary},
    {"lookup", 1, 1, kBytes, make_lookup},
    {"quantized_mean", 1, 1, kBytes, make_quantized_mean},
    {"quantized_average_pool", 1, 1, kBytes, make_quantized_average_pool},
};

// Calls `function`, whose errors get the step's name.
template <class F>
auto named(const std::string& operation, const std::string& name, const F& function) {
  try {
    return function();
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("The step '" + name + "' (" + operation + "): " + error.what());
  }
}

// Plans are kept for this many combinations of input shapes.
constexpr size_t kMostPlans = 32;

// How often a caller tries to take its turn at the plans that are kept: some microseconds.
constexpr int kTries = 200;

}  // namespace

std::unique_ptr<Step> make_step(const StepDescription& d, const std::vector<DType>& inputs,
                                const std::shared_ptr<WeightMemory>& memory) {
  for (const auto& one : kOperations) {
    if (d.operation != one.operation) continue;
    const int count = static_cast<int>(d.inputs.size());
    if (count < one.least || count > one.most)
      fail("It takes " + std::to_string(one.least) + " to " + std::to_string(one.most) +
           " inputs. Received: " + std::to_string(count) + ".");
    for (const DType dtype : inputs) {
      if ((one.takes & bit(dtype)) == 0)
        fail("It takes no inputs of " + std::string(name_of(dtype)) + ".");
      if (dtype != inputs[0])
        fail("Its inputs must be of one dtype. Received: " + std::string(name_of(inputs[0])) +
             " and " + name_of(dtype) + ".");
    }
    return one.make(d, inputs.empty() ? DType::f32 : inputs[0], memory);
  }
  fail("There is no such operation.");
}

// A program for inputs of certain shapes.
struct Program::Plan {
  std::vector<Shape> inputs;
  // Of every value; for a value with a place of its own, `offset` is where it lies in the arena.
  struct Value {
    Shape shape;
    enum class Place { input, arena, output, constant } place;
    // Between the steps of the group: there is memory for as many images as go together.
    bool grouped = false;
    int64_t bytes = 0;
    int64_t image = 0;           // bytes of one image, where the group reads or writes it
    int64_t offset = 0;          // in the arena
    int index = -1;              // of the input or output
    const void* data = nullptr;  // of a constant
  };
  std::vector<Value> values;
  std::vector<std::unique_ptr<Call>> calls;    // of the steps, for the whole batch
  std::vector<std::unique_ptr<Call>> chains;   // of several of them
  Group group;                                 // of steps that a few images at a time go through
  int64_t rounds = 1;                          // how often, until all images have
  std::vector<std::unique_ptr<Call>> grouped;  // their calls
  // What is computed, one after the other: a step's call, or a chain, whose step is its last.
  struct Run {
    const Call* call;
    std::vector<int> inputs;  // values
    int first, step;          // of the steps that it computes; the same where that is one
  };
  std::vector<Run> runs;
  // Outputs that are no step's own result: copied at the end.
  struct Copy {
    int value, output;
  };
  std::vector<Copy> copies;
  int64_t arena = 0, naive = 0;

  // What runs for a step.
  const Call& call_of(int step) const {
    return group.has(step) ? *grouped[static_cast<size_t>(step - group.first)]
                           : *calls[static_cast<size_t>(step)];
  }
};

struct Program::Observer {
  std::vector<double> seconds;
};

Program::~Program() = default;

Program::Program(const NetworkDescription& network)
    : dtype_(network.dtype),
      tuning_(network.tuning),
      group_bytes_(network.group_bytes),
      input_sizes_(network.inputs),
      outputs_(network.outputs) {
  if (dtype_ != DType::f32 && dtype_ != DType::f64)
    fail("A program computes in float32 or float64.");
  for (const auto& sizes : input_sizes_) {
    Shape checked;
    for (const int64_t size : sizes) checked.append(size == -1 ? 1 : size);
  }
  int64_t bytes = 0;
  for (const StepDescription& d : network.steps)
    for (const TensorView* tensor : d.tensors)
      if (tensor != nullptr) bytes += tensor->shape.elements() * packed_item(tensor->dtype);
  // Packing fills panels up.
  const auto memory = std::make_shared<WeightMemory>(bytes + bytes / 16);
  for (const StepDescription& d : network.steps) {
    named(d.operation, d.name, [&] {
      for (const int input : d.inputs)
        if (input < 0 || static_cast<size_t>(input) >= input_sizes_.size() + steps_.size())
          fail("It takes a value that does not come before it: " + std::to_string(input) + ".");
      std::vector<DType> dtypes;
      for (const int input : d.inputs) dtypes.push_back(dtype_of(input));
      auto step = make_step(d, dtypes, memory);
      const DType gives = step->gives(dtypes.empty() ? dtype_ : dtypes[0]);
      steps_.push_back({d.operation, d.name, d.inputs, std::move(step), gives});
    });
  }
  if (outputs_.empty()) fail("A network must have an output.");
  for (const int output : outputs_) {
    if (output < 0 || static_cast<size_t>(output) >= input_sizes_.size() + steps_.size())
      fail("There is no value of the number of an output: " + std::to_string(output) + ".");
    if (dtype_of(output) != dtype_)
      fail("Outputs must be of " + std::string(name_of(dtype_)) +
           ". Received: " + name_of(dtype_of(output)) + ".");
  }
}

DType Program::dtype_of(int value) const {
  const auto index = static_cast<size_t>(value);
  return index < input_sizes_.size() ? dtype_ : steps_[index - input_sizes_.size()].dtype;
}

void Program::check_inputs(const std::vector<Shape>& inputs) const {
  if (inputs.size() != input_sizes_.size())
    fail("The program takes " + std::to_string(input_sizes_.size()) +
         " inputs. Received: " + std::to_string(inputs.size()) + ".");
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto& sizes = input_sizes_[i];
    bool fits = static_cast<size_t>(inputs[i].rank()) == sizes.size();
    for (size_t axis = 0; fits && axis < sizes.size(); ++axis)
      fits = sizes[axis] == -1 || sizes[axis] == inputs[i][static_cast<int>(axis)];
    if (fits) continue;
    std::string expected;
    for (const int64_t size : sizes)
      expected += (expected.empty() ? "" : ", ") + (size == -1 ? "None" : std::to_string(size));
    fail("Input " + std::to_string(i) + " must have the shape (" + expected +
         "), where None may be any size. Received: shape " + inputs[i].text() + ".");
  }
}

Program::PlanPointer Program::plan(const std::vector<Shape>& inputs) const {
  if (const Turn turn{taken_, kTries}) {
    for (size_t i = plans_.size(); i-- > 0;) {
      if (plans_[i]->inputs != inputs) continue;
      std::rotate(plans_.begin() + static_cast<std::ptrdiff_t>(i),
                  plans_.begin() + static_cast<std::ptrdiff_t>(i) + 1, plans_.end());
      return plans_.back();
    }
  }
  check_inputs(inputs);
  PlanPointer made = make_plan(inputs);
  if (const Turn turn{taken_, kTries}) {
    if (plans_.size() == kMostPlans) plans_.erase(plans_.begin());
    plans_.push_back(made);
  }
  return made;
}

Program::PlanPointer Program::make_plan(const std::vector<Shape>& inputs) const {
  using Value = Plan::Value;
  using Place = Value::Place;
  auto made = std::make_shared<Plan>();
  made->inputs = inputs;
  std::vector<Value>& values = made->values;
  const int first_step = static_cast<int>(inputs.size());
  for (int i = 0; i < first_step; ++i) {
    values.push_back({inputs[static_cast<size_t>(i)], Place::input});
    values.back().index = i;
  }
  // A view is in the memory of the value that it sees: `owner`.
  std::vector<int> owner;
  for (int i = 0; i < first_step; ++i) owner.push_back(i);
  for (size_t i = 0; i < steps_.size(); ++i) {
    const NamedStep& step = steps_[i];
    std::vector<Shape> shapes;
    for (const int input : step.inputs) shapes.push_back(values[static_cast<size_t>(input)].shape);
    made->calls.push_back(
        named(step.operation, step.name, [&] { return step.step->bind(shapes.data()); }));
    const Call& call = *made->calls.back();
    values.push_back({call.shape, Place::arena});
    const int self = first_step + static_cast<int>(i);
    const void* constant = step.step->constant();
    if (constant != nullptr) {
      values.back().place = Place::constant;
      values.back().data = constant;
    }
    owner.push_back(
        call.view && call.in_place >= 0
            ? owner[static_cast<size_t>(step.inputs[static_cast<size_t>(call.in_place)])]
            : self);
  }
  make_group(*made);
  make_runs(*made);
  const Group& group = made->group;
  const auto own_of = [&](int value) {
    return static_cast<size_t>(owner[static_cast<size_t>(value)]);
  };
  // The last step that reads each owner's memory.
  std::vector<int> last(values.size(), -1);
  for (int step = group.first; step < group.end; ++step)
    values[static_cast<size_t>(first_step + step)].grouped = true;
  for (const Plan::Run& run : made->runs) {
    last[own_of(first_step + run.step)] = run.step;
    for (const int input : run.inputs) {
      last[own_of(input)] = run.step;
      if (!group.has(run.step)) values[own_of(input)].grouped = false;
    }
  }
  for (const int output : outputs_) values[own_of(output)].grouped = false;
  // What the group reads of the whole batch is there until its last round has ended.
  for (const Plan::Run& run : made->runs) {
    if (!group.has(run.step)) continue;
    for (const int input : run.inputs)
      if (!values[own_of(input)].grouped)
        last[own_of(input)] = std::max(last[own_of(input)], group.end - 1);
  }
  for (size_t v = 0; v < values.size(); ++v) {
    Value& value = values[v];
    value.bytes = value.shape.elements() * itemsize(dtype_of(static_cast<int>(v)));
    if (value.shape.rank() > 0 && value.shape[0] > 0) value.image = value.bytes / value.shape[0];
  }
  std::vector<bool> is_output(values.size(), false);
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const auto value = static_cast<size_t>(outputs_[i]);
    const auto own = static_cast<size_t>(owner[value]);
    // A result that a step computes is written where the caller wants it, once.
    if (values[own].place == Place::arena && !is_output[own]) {
      values[own].place = Place::output;
      values[own].index = static_cast<int>(i);
    } else {
      made->copies.push_back({outputs_[i], static_cast<int>(i)});
    }
    is_output[own] = true;
  }
  // Where a step may write over its input, both are one array of the arena from then on.
  std::vector<Lifetime> arrays;
  std::vector<int> array_of(values.size(), -1);
  for (size_t i = 0; i < made->calls.size(); ++i) {
    if (made->calls[i]->view) continue;
    if (__builtin_add_overflow(made->naive, values[inputs.size() + i].bytes, &made->naive))
      fail("The network's values have more bytes than memory can address.");
  }
  for (const Plan::Run& run : made->runs) {
    const auto self = static_cast<size_t>(first_step + run.step);
    if (values[self].place != Place::arena) continue;
    const bool grouped = values[self].grouped;
    const int64_t bytes =
        grouped ? run.call->shape.elements() * itemsize(steps_[static_cast<size_t>(run.step)].dtype)
                : values[self].bytes;
    // What the group writes of the whole batch is there from its first round on.
    const int from = group.has(run.step) && !grouped ? group.first : run.step;
    const int until = std::max(last[self], run.step);
    if (run.call->in_place >= 0) {
      const int input =
          owner[static_cast<size_t>(run.inputs[static_cast<size_t>(run.call->in_place)])];
      const int array = array_of[static_cast<size_t>(input)];
      // Another input in the same memory would change under the step.
      const auto uses = std::count_if(run.inputs.begin(), run.inputs.end(), [&](int other) {
        return owner[static_cast<size_t>(other)] == input;
      });
      if (array >= 0 && uses == 1 && last[static_cast<size_t>(input)] == run.step &&
          values[static_cast<size_t>(input)].grouped == grouped &&
          arrays[static_cast<size_t>(array)].bytes >= bytes) {
        array_of[self] = array;
        arrays[static_cast<size_t>(array)].last = until;
        continue;
      }
    }
    array_of[self] = static_cast<int>(arrays.size());
    arrays.push_back({bytes, from, until});
  }
  made->arena = place(arrays);
  for (size_t v = 0; v < values.size(); ++v) {
    const auto own = static_cast<size_t>(owner[v]);
    if (array_of[own] >= 0) values[v].offset = arrays[static_cast<size_t>(array_of[own])].offset;
    const Value self = values[v];
    if (own != v) values[v] = values[own];
    values[v].shape = self.shape;
    values[v].bytes = self.bytes;
    values[v].image = self.image;
    values[v].offset = self.offset;
  }
  return made;
}

// Binds the steps of the group, where there is one.
void Program::make_group(Plan& plan) const {
  if (plan.inputs.empty() || plan.inputs[0].elements() == 0 || plan.inputs[0].rank() == 0) return;
  const int64_t batch = plan.inputs[0][0];
  const auto of_batch = [&](const Shape& shape) { return shape.rank() > 0 && shape[0] == batch; };
  std::vector<StepSize> sizes;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Call& call = *plan.calls[i];
    bool fits = (call.by_images || call.view) && of_batch(call.shape) && !steps_[i].inputs.empty();
    for (const int input : steps_[i].inputs) {
      const Plan::Value& value = plan.values[static_cast<size_t>(input)];
      fits &= value.place != Plan::Value::Place::constant && of_batch(value.shape);
    }
    sizes.push_back({fits, fits ? call.shape.elements() / batch * itemsize(steps_[i].dtype) : 0,
                     steps_[i].step->weight_bytes()});
  }
  const Group group = choose_group(sizes, batch, group_bytes_);
  for (int step = group.first; step < group.end; ++step) {
    const auto i = static_cast<size_t>(step);
    std::vector<Shape> shapes;
    for (const int input : steps_[i].inputs) {
      shapes.push_back(plan.values[static_cast<size_t>(input)].shape);
      shapes.back().set(0, group.images);
    }
    try {
      plan.grouped.push_back(steps_[i].step->bind(shapes.data()));
    } catch (const std::invalid_argument&) {
      return;  // a shape that holds for this batch alone
    }
    Shape expected = plan.calls[i]->shape;
    expected.set(0, group.images);
    if (!(plan.grouped.back()->shape == expected)) return;
  }
  plan.group = group;
  if (group.images > 0) plan.rounds = batch / group.images;
}

// Chains follow from sizes alone, as all of a plan.
void Program::make_runs(Plan& plan) const {
  const int first_step = static_cast<int>(input_sizes_.size());
  std::vector<int> readers(plan.values.size(), 0);
  for (const NamedStep& step : steps_)
    for (const int input : step.inputs) ++readers[static_cast<size_t>(input)];
  for (const int output : outputs_) readers[static_cast<size_t>(output)] += 2;
  const auto call_of = [&](int step) { return &plan.call_of(step); };
  // Whether a step and the next one are better computed together.
  const auto linked = [&](int step) {
    if (tuning_.chain_from_bytes < 0) return false;
    const int next = step + 1, value = first_step + step;
    if (static_cast<size_t>(next) == steps_.size()) return false;
    if (plan.group.has(step) != plan.group.has(next)) return false;
    const Call &here = *call_of(step), &after = *call_of(next);
    if (!here.by_rows() || !after.by_rows()) return false;
    const auto& inputs = steps_[static_cast<size_t>(next)].inputs;
    if (inputs[0] != value || readers[static_cast<size_t>(value)] != 1) return false;
    const Shape& between = here.shape;
    return between.elements() != 0 &&
           between.elements() / between[0] * itemsize(dtype_of(value)) >= tuning_.chain_from_bytes;
  };
  for (int step = 0; step < static_cast<int>(steps_.size()); ++step) {
    if (call_of(step)->view) continue;
    std::vector<int> inputs = steps_[static_cast<size_t>(step)].inputs;
    if (tuning_.most_links < 2 || !linked(step)) {
      plan.runs.push_back({call_of(step), inputs, step, step});
      continue;
    }
    const int first = step;
    Shape first_input = plan.values[static_cast<size_t>(inputs[0])].shape;
    if (plan.group.has(step)) first_input.set(0, plan.group.images);
    const int64_t first_item = itemsize(dtype_of(inputs[0]));
    const auto item = [&](int of) { return itemsize(steps_[static_cast<size_t>(of)].dtype); };
    std::vector<Link> links{{call_of(step), item(step), inputs.size() > 1 ? 1 : -1}};
    while (static_cast<int64_t>(links.size()) < tuning_.most_links && linked(step)) {
      const auto& more = steps_[static_cast<size_t>(++step)].inputs;
      links.push_back({call_of(step), item(step), -1});
      if (more.size() == 1) continue;
      links.back().second = static_cast<int>(inputs.size());
      inputs.push_back(more[1]);
    }
    plan.chains.push_back(
        make_chain(std::move(links), first_input, first_item, tuning_.strip_bytes));
    plan.runs.push_back({plan.chains.back().get(), inputs, first, step});
  }
}

std::vector<Shape> Program::output_shapes(const std::vector<Shape>& inputs) const {
  const PlanPointer here = plan(inputs);
  std::vector<Shape> shapes;
  for (const int output : outputs_)
    shapes.push_back(here->values[static_cast<size_t>(output)].shape);
  return shapes;
}

void Program::execute(const Plan& plan, const void* const* inputs, void* const* outputs,
                      Observer* observer) const {
  const CallMemory arena(std::max<int64_t>(plan.arena, 64));
  // In a round of the group: where its images begin.
  const auto address = [&](const Plan::Value& value, int64_t first_image) -> void* {
    const int64_t before = value.grouped ? 0 : first_image * value.image;
    switch (value.place) {
      case Plan::Value::Place::input:
        return static_cast<char*>(const_cast<void*>(inputs[value.index])) + before;
      case Plan::Value::Place::output:
        return static_cast<char*>(outputs[value.index]) + before;
      case Plan::Value::Place::constant:
        return const_cast<void*>(value.data);
      default:
        return arena.get() + value.offset + before;
    }
  };
  struct Body {
    const Program& program;
    const Plan& plan;
    const decltype(address)& where;
    Observer* observer;
    std::exception_ptr error;
    std::vector<const void*> in;

    void run(Runner& runner) {
      const Group& group = plan.group;
      for (size_t i = 0; i < plan.runs.size(); ++i) {
        if (!group.has(plan.runs[i].step)) {
          run_one(plan.runs[i], 0, runner);
          continue;
        }
        const size_t first = i;
        while (i + 1 < plan.runs.size() && group.has(plan.runs[i + 1].step)) ++i;
        for (int64_t round = 0; round < plan.rounds; ++round)
          for (size_t k = first; k <= i; ++k) run_one(plan.runs[k], round * group.images, runner);
      }
    }
    void run_one(const Plan::Run& run, int64_t first_image, Runner& runner) {
      in.clear();
      for (const int input : run.inputs)
        in.push_back(where(plan.values[static_cast<size_t>(input)], first_image));
      const auto step = static_cast<size_t>(run.step);
      const Plan::Value& y = plan.values[program.input_sizes_.size() + step];
      const auto start = std::chrono::steady_clock::now();
      run.call->run(in.data(), where(y, first_image), runner);
      if (observer != nullptr)
        observer->seconds[step] +=
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
  } body{*this, plan, address, observer, nullptr, {}};
  run_as_team(
      [](void* context, Runner& runner) {
        Body& here = *static_cast<Body*>(context);
        try {
          here.run(runner);
        } catch (...) {
          here.error = std::current_exception();
        }
      },
      &body);
  if (body.error) std::rethrow_exception(body.error);
  for (const Plan::Copy& copy : plan.copies) {
    const Plan::Value& value = plan.values[static_cast<size_t>(copy.value)];
    __builtin_memcpy(outputs[copy.output], address(value, 0), static_cast<size_t>(value.bytes));
  }
}

void Program::run(const std::vector<Shape>& shapes, const void* const* inputs,
                  void* const* outputs) const {
  execute(*plan(shapes), inputs, outputs, nullptr);
}

std::vector<StepReport> Program::profile(const std::vector<Shape>& shapes,
                                         const void* const* inputs, void* const* outputs) const {
  const PlanPointer here = plan(shapes);
  Observer observer;
  observer.seconds.assign(steps_.size(), 0);
  execute(*here, inputs, outputs, &observer);
  std::vector<StepReport> reports;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Call& call = *here->calls[i];
    std::string text = here->call_of(static_cast<int>(i)).plan_text(num_threads());
    if (here->group.has(static_cast<int>(i)) && !text.empty())
      text += ", " + std::to_string(here->group.images) +
              (here->group.images == 1 ? " image at a time" : " images at a time");
    reports.push_back({steps_[i].operation, steps_[i].name, call.shape, call.multiply_adds,
                       steps_[i].step->weight_bytes(), observer.seconds[i], text});
  }
  for (const Plan::Run& run : here->runs)
    for (int i = run.first; i < run.step; ++i)
      reports[static_cast<size_t>(i)].plan = "with the next";
  return reports;
}

MemoryUse Program::memory(const std::vector<Shape>& inputs) const {
  const PlanPointer here = plan(inputs);
  MemoryUse use{0, here->arena, here->naive};
  for (const NamedStep& step : steps_) use.weights += step.step->weight_bytes();
  return use;
}

}  // namespace sepconv::program
