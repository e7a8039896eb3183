// A convolution of fixed weights.
#include "prepared.h"

#include <cstring>
#include <utility>

namespace sepconv {

const void* PreparedConvolution::copy(const void* from, int64_t elements) const {
  if (from == nullptr) return nullptr;
  const int64_t bytes = elements * itemsize(weights_.dtype);
  void* const to = memory_->take(bytes);
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return to;
}

PreparedConvolution::PreparedConvolution(const Weights& weights,
                                         std::shared_ptr<WeightMemory> memory)
    : weights_(weights),
      memory_(memory != nullptr ? std::move(memory) : std::make_shared<WeightMemory>()) {
  Forward& args = weights_.args;
  const int64_t middle = weights.channels * weights.depth_multiplier;
  const bool depthwise = args.depthwise_kernel != nullptr;
  args.depthwise_kernel = copy(args.depthwise_kernel, weights.taps * middle);
  args.depthwise_bias = copy(args.depthwise_bias, middle);
  args.bias = copy(args.bias, args.mixes() ? args.filters : middle);
  if (!args.mixes()) return;
  const int64_t depth = depthwise ? middle : weights.taps * weights.channels;
  void* const packed = memory_->take(
      packed_kernel_bytes(weights.dtype, weights.channels_first, depth, args.filters));
  pack_pointwise_kernel(weights.dtype, weights.channels_first, depth, args.filters,
                        args.pointwise_kernel, packed);
  args.pointwise_kernel = nullptr;
  args.packed_kernel = packed;
}

void PreparedConvolution::forward(const Geometry& g, const void* x, const void* residual, void* y,
                                  Runner& runner) const {
  Forward args = weights_.args;
  args.x = x;
  args.residual = residual;
  args.y = y;
  sepconv::forward(weights_.dtype, g, args, runner);
}

}  // namespace sepconv
