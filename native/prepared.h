// A convolution of fixed weights. It keeps copies of them, the kernel that mixes channels packed:
// in the order in which the matrix product reads it.
#pragma once
#include <cstdint>
#include <memory>

#include "dispatch.h"

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
  explicit PreparedConvolution(const Weights& weights);

  // `g` has the kernel size, channels and depth multiplier of the weights.
  void forward(const Geometry& g, const void* x, const void* residual, void* y,
               Runner& runner) const;

  const Weights& weights() const { return weights_; }

 private:
  struct Free {
    void operator()(char* memory) const;
  };
  using Memory = std::unique_ptr<char, Free>;
  static Memory allocate(int64_t bytes);
  Memory copy(const void* from, int64_t elements) const;

  Weights weights_;
  Memory depthwise_, packed_, bias_, depthwise_bias_;
};

}  // namespace sepconv
