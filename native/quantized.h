// How the int8 operations of quantized_operation.h are called, and convolutions of them whose
// weights are fixed.
#pragma once
#include <memory>
#include <vector>

#include "quantized_operation.h"
#include "threads.h"
#include "weight_memory.h"

namespace sepconv {

// As in dispatch.h. Where there are no elements, nothing is done.
SEPCONV_API void quantize(const QuantizeStep& step, Runner& runner);
SEPCONV_API void dequantize(const DequantizeStep& step, Runner& runner);
SEPCONV_API void lookup(const LookupStep& step, Runner& runner);
SEPCONV_API void quantized_binary(const QuantizedBinaryStep& step, Runner& runner);
SEPCONV_API void quantized_mean(const QuantizedMeanStep& step, Runner& runner);
SEPCONV_API void quantized_average_pool(const Geometry& g, const QuantizedAveragePoolStep& step,
                                        Runner& runner);

// A convolution of weights that are packed once.
class SEPCONV_API PreparedQuantized {
 public:
  // The packed weights lie in `memory`, or in memory of their own. Throws std::invalid_argument
  // where a sum could leave int32, a scale is not finite, or a zero point or bound is none of
  // uint8.
  explicit PreparedQuantized(const QuantizedWeights& weights,
                             std::shared_ptr<WeightMemory> memory = nullptr);

  // `g` has the kernel's size, strides and dilations, and the channels of the weights. `residual`
  // may be null, and is where there is no kernel that mixes channels.
  void forward(const Geometry& g, const uint8_t* x, const uint8_t* residual, uint8_t* y,
               Runner& runner) const;
  // The sums as float32, of weights that mix channels and have no table.
  void forward(const Geometry& g, const uint8_t* x, float* y, Runner& runner) const;

  // How it goes on so many threads.
  QuantizedPlan plan(const Geometry& g, int threads) const;

  // Without its tensors, which were packed.
  const QuantizedWeights& weights() const { return weights_; }
  int64_t bytes() const { return bytes_; }

 private:
  QuantizedWeights weights_;
  std::shared_ptr<WeightMemory> memory_;
  void* packed_;
  int64_t bytes_;
};

}  // namespace sepconv
