// A convolution of fixed weights.
#include "prepared.h"

#include <cstring>
#include <new>

namespace sepconv {
namespace {

constexpr std::align_val_t kAlignment{64};

// Whether the kernels may take it for an ordinary convolution (kernels/patches.h), for which they
// put the weights in an order of their own.
bool may_select(const Prepared::Weights& w) {
  return w.args.depthwise_kernel != nullptr && !w.channels_first && w.taps > 1 &&
         w.depth_multiplier == w.taps;
}

}  // namespace

void Prepared::Free::operator()(char* memory) const { ::operator delete(memory, kAlignment); }

Prepared::Memory Prepared::allocate(int64_t bytes) {
  return Memory(static_cast<char*>(::operator new(static_cast<size_t>(bytes), kAlignment)));
}

Prepared::Memory Prepared::copy(const void* from, int64_t elements) const {
  if (from == nullptr) return nullptr;
  const int64_t bytes = elements * itemsize(weights_.dtype);
  Memory to = allocate(bytes);
  std::memcpy(to.get(), from, static_cast<size_t>(bytes));
  return to;
}

Prepared::Prepared(const Weights& weights) : weights_(weights) {
  Forward& args = weights_.args;
  const int64_t middle = weights.channels * weights.depth_multiplier;
  depthwise_ = copy(args.depthwise_kernel, weights.taps * middle);
  depthwise_bias_ = copy(args.depthwise_bias, middle);
  bias_ = copy(args.bias, args.separable() ? args.filters : middle);
  args.depthwise_kernel = depthwise_.get();
  args.depthwise_bias = depthwise_bias_.get();
  args.bias = bias_.get();
  if (!args.separable()) return;
  if (may_select(weights_)) {
    pointwise_ = copy(args.pointwise_kernel, middle * args.filters);
    args.pointwise_kernel = pointwise_.get();
    return;
  }
  packed_ =
      allocate(packed_kernel_bytes(weights.dtype, weights.channels_first, middle, args.filters));
  pack_pointwise_kernel(weights.dtype, weights.channels_first, middle, args.filters,
                        args.pointwise_kernel, packed_.get());
  args.pointwise_kernel = nullptr;
  args.packed_kernel = packed_.get();
}

void Prepared::forward(const Geometry& g, const void* x, const void* residual, void* y,
                       Runner& runner) const {
  Forward args = weights_.args;
  args.x = x;
  args.residual = residual;
  args.y = y;
  sepconv::forward(weights_.dtype, g, args, runner);
}

void Prepared::product(int64_t images, int64_t pixels, const void* x, const void* residual, void* y,
                       Runner& runner) const {
  const Forward& all = weights_.args;
  const Pointwise shape{.images = images,
                        .pixels = pixels,
                        .channels = weights_.channels,
                        .filters = all.filters,
                        .channels_first = weights_.channels_first};
  const PointwiseForward args{.x = x,
                              .pointwise_kernel = all.pointwise_kernel,
                              .bias = all.bias,
                              .residual = residual,
                              .y = y,
                              .activation = all.activation,
                              .packed_kernel = all.packed_kernel};
  pointwise_forward(weights_.dtype, shape, args, runner);
}

}  // namespace sepconv
