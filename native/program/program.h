// A program: a network whose weights are packed, that runs as one call.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../operation.h"
#include "../tuning.h"
#include "shape.h"
#include "step.h"

namespace sepconv::program {

// Choices that change how fast a program is, and no bit of what it computes.
struct Tuning {
  // Neighbouring steps are computed together, by bands of rows (chain.h), where the value between
  // them has at least so many bytes an image. 0: all that can be, -1: none.
  int64_t chain_from_bytes = tuning::kChainFarBytes;
  int64_t strip_bytes = tuning::kChainBytes;  // of all rows that are kept between them
  int64_t most_links = tuning::kMostLinks;    // how many steps go together at most
};

// A network as data; see src/sepconv/program/network.py.
struct NetworkDescription {
  DType dtype;  // of the inputs and outputs: float32 or float64
  // The inputs' sizes; -1 for those that may be any.
  std::vector<std::vector<int64_t>> inputs;
  std::vector<StepDescription> steps;
  std::vector<int> outputs;  // numbers of values
  Tuning tuning = {};
  // Another tuning::kGroupImagesBytes, for tests. The last bits of results depend on it.
  int64_t group_bytes = tuning::kGroupImagesBytes;
};

// Bytes of memory.
struct MemoryUse {
  int64_t weights;  // packed
  int64_t arena;    // of one call, for all that lies between its inputs and outputs
  int64_t naive;    // for the same, if every step had memory of its own
};

// What a step did in a call.
struct StepReport {
  std::string operation, name;
  Shape shape;
  int64_t multiply_adds, weight_bytes;
  double seconds;
  std::string plan;
};

// May be used by many threads at once.
class SEPCONV_API Program {
 public:
  // Copies what it needs of the tensors. Throws std::invalid_argument where the description is not
  // that of a network.
  explicit Program(const NetworkDescription& network);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  DType dtype() const { return dtype_; }
  size_t inputs() const { return input_sizes_.size(); }
  size_t outputs() const { return outputs_.size(); }

  // The outputs' shapes for inputs of these shapes. Throws std::invalid_argument, with a sentence
  // for the user, where they do not fit.
  std::vector<Shape> output_shapes(const std::vector<Shape>& inputs) const;
  // Computes the outputs, arrays of those shapes.
  void run(const std::vector<Shape>& shapes, const void* const* inputs, void* const* outputs) const;
  // Computes the outputs, and tells what each step did and how long it took.
  std::vector<StepReport> profile(const std::vector<Shape>& shapes, const void* const* inputs,
                                  void* const* outputs) const;
  MemoryUse memory(const std::vector<Shape>& inputs) const;

 private:
  struct Plan;  // see program_plan.h
  class Planner;
  struct Observer;
  using PlanPointer = std::shared_ptr<const Plan>;
  struct NamedStep {
    std::string operation, name;
    std::vector<int> inputs;
    std::unique_ptr<Step> step;
    DType dtype;  // of what it gives
  };

  void check_inputs(const std::vector<Shape>& inputs) const;
  DType dtype_of(int value) const;
  PlanPointer plan(const std::vector<Shape>& inputs) const;
  PlanPointer make_plan(const std::vector<Shape>& inputs) const;
  void execute(const Plan& plan, const void* const* inputs, void* const* outputs,
               Observer* observer) const;

  const DType dtype_;
  const Tuning tuning_;
  const int64_t group_bytes_;
  std::vector<std::vector<int64_t>> input_sizes_;
  std::vector<NamedStep> steps_;
  std::vector<int> outputs_;
  // Nobody waits for the plans that are kept: see turn.h.
  mutable std::atomic_flag taken_;
  mutable std::vector<PlanPointer> plans_;  // the last used is the last
};

}  // namespace sepconv::program
