// A program: checks its description, keeps the plans of the last shapes, and runs them.
#include "program.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <utility>

#include "../turn.h"
#include "call_memory.h"
#include "program_plan.h"
#include "team.h"

namespace sepconv::program {
namespace {

// Plans are kept for this many combinations of input shapes.
constexpr size_t kMostPlans = 32;

// How often a caller tries to take its turn at the plans that are kept: some microseconds.
constexpr int kTries = 200;

}  // namespace

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
    Shape checked;  // refuses sizes that no array has
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
  // Where a value begins; in a round of the group, where the first image of the round does.
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
