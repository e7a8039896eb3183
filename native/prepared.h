// A convolution of fixed weights. It keeps copies of them, the kernel that mixes channels packed:
// in the order in which the matrix product reads it.
#pragma once
#include <cstdint>
#include <memory>

#include "dispatch.h"
#include "weight_memory.h"

namespace sepconv {

class SEPCONV_API PreparedConvolution {
 public:
  // `args` has what `forward` takes, except x, residual and y. `taps` is kh * kw of the kernel that
  // has a size; `depth_multiplier` is 1 without a depthwise kernel. Throws std::bad_alloc where
  // there is no memory.
  struct Weights {
    DType dtype;
    bool channels_first;
    int64_t taps, channels, depth_multiplier;
    Forward args;
  };
  // The weights lie in `memory`, or in memory of its own.
  explicit PreparedConvolution(const Weights& weights,
                               std::shared_ptr<WeightMemory> memory = nullptr);

  // `g` has the kernel size, channels and depth multiplier of the weights.
  void forward(const Geometry& g, const void* x, const void* residual, void* y,
               Runner& runner) const;

  const Weights& weights() const { return weights_; }

 private:
  const void* copy(const void* from, int64_t elements) const;

  Weights weights_;
  std::shared_ptr<WeightMemory> memory_;
};

}  // namespace sepconv
