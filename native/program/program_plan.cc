// Plans a program for the shapes at hand. A plan follows from sizes alone.
#include "program_plan.h"

#include <algorithm>
#include <utility>

#include "arena.h"
#include "chain.h"

namespace sepconv::program {

// Makes one plan, in the order of `make`; each part takes what those before it have found out.
class Program::Planner {
 public:
  Planner(const Program& program, const std::vector<Shape>& inputs)
      : program_(program),
        steps_(program.steps_),
        first_step_(static_cast<int>(inputs.size())),
        plan_(std::make_shared<Plan>()) {
    plan_->inputs = inputs;
  }

  PlanPointer make() {
    bind_steps();
    choose_group();
    make_runs();
    find_last_readers();
    count_bytes();
    give_outputs();
    place_arrays();
    finish_views();
    return plan_;
  }

 private:
  using Value = Plan::Value;
  using Place = Value::Place;
  using Run = Plan::Run;

  Value& value(int number) { return plan_->values[static_cast<size_t>(number)]; }
  // The value that has the memory that a value is in: a view is in that of the value that it sees.
  int owner(int number) const { return owner_[static_cast<size_t>(number)]; }
  Value& owner_of(int number) { return value(owner(number)); }
  int& last_reader(int number) { return last_reader_[static_cast<size_t>(owner(number))]; }
  const NamedStep& step_at(int step) const { return steps_[static_cast<size_t>(step)]; }

  // The values, and each step's call for the whole batch.
  void bind_steps() {
    std::vector<Value>& values = plan_->values;
    for (int i = 0; i < first_step_; ++i) {
      values.push_back({plan_->inputs[static_cast<size_t>(i)], Place::input});
      values.back().index = i;
      owner_.push_back(i);
    }
    for (const NamedStep& step : steps_) {
      std::vector<Shape> shapes;
      for (const int input : step.inputs) shapes.push_back(value(input).shape);
      plan_->calls.push_back(
          named(step.operation, step.name, [&] { return step.step->bind(shapes.data()); }));
      const Call& call = *plan_->calls.back();
      const int self = static_cast<int>(values.size());
      values.push_back({call.shape, Place::arena});
      const void* constant = step.step->constant();
      if (constant != nullptr) {
        values.back().place = Place::constant;
        values.back().data = constant;
      }
      const bool sees = call.view && call.in_place >= 0;
      owner_.push_back(sees ? owner(step.inputs[static_cast<size_t>(call.in_place)]) : self);
    }
  }

  // Chooses the group's steps and binds them, where there is a group.
  void choose_group() {
    const std::vector<Shape>& inputs = plan_->inputs;
    if (inputs.empty() || inputs[0].elements() == 0 || inputs[0].rank() == 0) return;
    const int64_t batch = inputs[0][0];
    const auto of_batch = [&](const Shape& shape) { return shape.rank() > 0 && shape[0] == batch; };
    std::vector<StepSize> sizes;
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Call& call = *plan_->calls[i];
      bool fits =
          (call.by_images || call.view) && of_batch(call.shape) && !steps_[i].inputs.empty();
      for (const int input : steps_[i].inputs)
        fits &= value(input).place != Place::constant && of_batch(value(input).shape);
      sizes.push_back({fits, fits ? call.shape.elements() / batch * itemsize(steps_[i].dtype) : 0,
                       steps_[i].step->weight_bytes()});
    }
    const Group group = program::choose_group(sizes, batch, program_.group_bytes_);
    for (int step = group.first; step < group.end; ++step) {
      std::vector<Shape> shapes;
      for (const int input : step_at(step).inputs) {
        shapes.push_back(value(input).shape);
        shapes.back().set(0, group.images);
      }
      try {
        plan_->grouped.push_back(step_at(step).step->bind(shapes.data()));
      } catch (const std::invalid_argument&) {
        return;  // a shape that holds for this batch alone
      }
      Shape expected = plan_->calls[static_cast<size_t>(step)]->shape;
      expected.set(0, group.images);
      if (!(plan_->grouped.back()->shape == expected)) return;
    }
    plan_->group = group;
    if (group.images > 0) plan_->rounds = batch / group.images;
  }

  // Whether a step and the next one are better computed together. `readers`: how often each value
  // is read.
  bool is_linked(int step, const std::vector<int>& readers) const {
    const Tuning& tuning = program_.tuning_;
    if (tuning.chain_from_bytes < 0) return false;
    const int next = step + 1, between = first_step_ + step;
    if (static_cast<size_t>(next) == steps_.size()) return false;
    if (plan_->group.has(step) != plan_->group.has(next)) return false;
    const Call &here = plan_->call_of(step), &after = plan_->call_of(next);
    if (!here.by_rows() || !after.by_rows()) return false;
    if (step_at(next).inputs[0] != between || readers[static_cast<size_t>(between)] != 1)
      return false;
    const Shape& shape = here.shape;
    return shape.elements() != 0 &&
           shape.elements() / shape[0] * itemsize(step_at(step).dtype) >= tuning.chain_from_bytes;
  }

  // What runs, in order: steps by themselves, and chains of them.
  void make_runs() {
    const Tuning& tuning = program_.tuning_;
    std::vector<int> readers(plan_->values.size(), 0);
    for (const NamedStep& step : steps_)
      for (const int input : step.inputs) ++readers[static_cast<size_t>(input)];
    // A network's output must be written as a whole, so it never lies between the links of a chain.
    for (const int output : program_.outputs_) readers[static_cast<size_t>(output)] += 2;
    for (int step = 0; step < static_cast<int>(steps_.size()); ++step) {
      const Call& call = plan_->call_of(step);
      if (call.view) continue;
      std::vector<int> inputs = step_at(step).inputs;
      if (tuning.most_links < 2 || !is_linked(step, readers)) {
        plan_->runs.push_back({&call, inputs, step, step});
        continue;
      }
      const int first = step;
      Shape first_input = value(inputs[0]).shape;
      if (plan_->group.has(step)) first_input.set(0, plan_->group.images);
      const int64_t first_item = itemsize(program_.dtype_of(inputs[0]));
      std::vector<Link> links{{&call, itemsize(step_at(step).dtype), inputs.size() > 1 ? 1 : -1}};
      while (static_cast<int64_t>(links.size()) < tuning.most_links && is_linked(step, readers)) {
        const NamedStep& next = step_at(++step);
        links.push_back({&plan_->call_of(step), itemsize(next.dtype), -1});
        if (next.inputs.size() == 1) continue;
        links.back().second = static_cast<int>(inputs.size());
        inputs.push_back(next.inputs[1]);
      }
      plan_->chains.push_back(
          make_chain(std::move(links), first_input, first_item, tuning.strip_bytes));
      plan_->runs.push_back({plan_->chains.back().get(), inputs, first, step});
    }
  }

  // The last step that reads each owner's memory, and which values only the group's rounds know.
  void find_last_readers() {
    const Group& group = plan_->group;
    last_reader_.assign(plan_->values.size(), -1);
    for (int step = group.first; step < group.end; ++step) value(first_step_ + step).grouped = true;
    for (const Run& run : plan_->runs) {
      last_reader(first_step_ + run.step) = run.step;
      for (const int input : run.inputs) {
        last_reader(input) = run.step;
        if (!group.has(run.step)) owner_of(input).grouped = false;
      }
    }
    for (const int output : program_.outputs_) owner_of(output).grouped = false;
    // What the group reads of the whole batch is there until its last round has ended.
    for (const Run& run : plan_->runs) {
      if (!group.has(run.step)) continue;
      for (const int input : run.inputs)
        if (!owner_of(input).grouped)
          last_reader(input) = std::max(last_reader(input), group.end - 1);
    }
  }

  void count_bytes() {
    for (int number = 0; number < static_cast<int>(plan_->values.size()); ++number) {
      Value& one = value(number);
      one.bytes = one.shape.elements() * itemsize(program_.dtype_of(number));
      if (one.shape.rank() > 0 && one.shape[0] > 0) one.image = one.bytes / one.shape[0];
    }
    for (int step = 0; step < static_cast<int>(steps_.size()); ++step) {
      if (plan_->calls[static_cast<size_t>(step)]->view) continue;
      if (__builtin_add_overflow(plan_->naive, value(first_step_ + step).bytes, &plan_->naive))
        fail("The network's values have more bytes than memory can address.");
    }
  }

  // A result that a step computes is written where the caller wants it, once; any other output is
  // copied at the end.
  void give_outputs() {
    std::vector<bool> is_output(plan_->values.size(), false);
    for (size_t i = 0; i < program_.outputs_.size(); ++i) {
      const int output = program_.outputs_[i];
      const auto own = static_cast<size_t>(owner(output));
      if (owner_of(output).place == Place::arena && !is_output[own]) {
        owner_of(output).place = Place::output;
        owner_of(output).index = static_cast<int>(i);
      } else {
        plan_->copies.push_back({output, static_cast<int>(i)});
      }
      is_output[own] = true;
    }
  }

  // Puts what steps compute into the arena. Where a step may write over its input, both are one
  // array of it from then on.
  void place_arrays() {
    const Group& group = plan_->group;
    std::vector<Lifetime> arrays;
    std::vector<int> array_of(plan_->values.size(), -1);  // of an owner
    for (const Run& run : plan_->runs) {
      const int self = first_step_ + run.step;
      if (value(self).place != Place::arena) continue;
      const bool grouped = value(self).grouped;
      const int64_t bytes = grouped ? run.call->shape.elements() * itemsize(step_at(run.step).dtype)
                                    : value(self).bytes;
      // What the group writes of the whole batch is there from its first round on.
      const int from = group.has(run.step) && !grouped ? group.first : run.step;
      const int until = std::max(last_reader_[static_cast<size_t>(self)], run.step);
      int& array = array_of[static_cast<size_t>(self)];
      if (run.call->in_place >= 0) {
        const int input = owner(run.inputs[static_cast<size_t>(run.call->in_place)]);
        const int over = array_of[static_cast<size_t>(input)];
        // Another input in the same memory would change under the step.
        const auto uses = std::count_if(run.inputs.begin(), run.inputs.end(),
                                        [&](int other) { return owner(other) == input; });
        if (over >= 0 && uses == 1 && last_reader(input) == run.step &&
            value(input).grouped == grouped && arrays[static_cast<size_t>(over)].bytes >= bytes) {
          array = over;
          arrays[static_cast<size_t>(over)].last = until;
          continue;
        }
      }
      array = static_cast<int>(arrays.size());
      arrays.push_back({bytes, from, until});
    }
    plan_->arena = place(arrays);
    for (int number = 0; number < static_cast<int>(plan_->values.size()); ++number) {
      const int array = array_of[static_cast<size_t>(owner(number))];
      if (array >= 0) value(number).offset = arrays[static_cast<size_t>(array)].offset;
    }
  }

  // A view lies where its owner does; its sizes are its own.
  void finish_views() {
    for (int number = 0; number < static_cast<int>(plan_->values.size()); ++number) {
      if (owner(number) == number) continue;
      const Value self = value(number);
      Value& view = value(number);
      view = owner_of(number);
      view.shape = self.shape;
      view.bytes = self.bytes;
      view.image = self.image;
    }
  }

  const Program& program_;
  const std::vector<NamedStep>& steps_;
  const int first_step_;  // the number of the first step's value
  const std::shared_ptr<Plan> plan_;
  std::vector<int> owner_;        // of every value
  std::vector<int> last_reader_;  // of every owner: a step, or -1
};

Program::PlanPointer Program::make_plan(const std::vector<Shape>& inputs) const {
  return Planner(*this, inputs).make();
}

}  // namespace sepconv::program
