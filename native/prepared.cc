// A convolution of fixed weights.
#include "prepared.h"

#include <cstring>
#include <new>

namespace sepconv {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void PreparedConvolution::Free::operator()(char* memory) const {
  ::operator delete(memory, kAlignment);
}

PreparedConvolution::Memory PreparedConvolution::allocate(int64_t bytes) {
  return Memory(static_cast<char*>(::operator new(static_cast<size_t>(bytes), kAlignment)));
}

PreparedConvolution::Memory PreparedConvolution::copy(const void* from, int64_t elements) const {
  if (from == nullptr) return nullptr;
  const int64_t bytes = elements * itemsize(weights_.dtype);
  Memory to = allocate(bytes);
  std::memcpy(to.get(), from, static_cast<size_t>(bytes));
  return to;
}

PreparedConvolution::PreparedConvolution(const Weights& weights) : weights_(weights) {
  Forward& args = weights_.args;
  const int64_t middle = weights.channels * weights.depth_multiplier;
  depthwise_ = copy(args.depthwise_kernel, weights.taps * middle);
  depthwise_bias_ = copy(args.depthwise_bias, middle);
  bias_ = copy(args.bias, args.mixes() ? args.filters : middle);
  args.depthwise_kernel = depthwise_.get();
  args.depthwise_bias = depthwise_bias_.get();
  args.bias = bias_.get();
  if (!args.mixes()) return;
  const int64_t depth = depthwise_ != nullptr ? middle : weights.taps * weights.channels;
  packed_ =
      allocate(packed_kernel_bytes(weights.dtype, weights.channels_first, depth, args.filters));
  pack_pointwise_kernel(weights.dtype, weights.channels_first, depth, args.filters,
                        args.pointwise_kernel, packed_.get());
  args.pointwise_kernel = nullptr;
  args.packed_kernel = packed_.get();
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
