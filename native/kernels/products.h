// The entries of a kernel table that are products alone, of tensors of any type: the 1x1
// convolution, its gradients, and weights packed for it.
#pragma once
#include "../operation.h"
#include "pointwise.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class T>
Weights<T> forward_weights(const T* kernel, int64_t channels, int64_t filters,
                           const void* packed = nullptr) {
  return {kernel, channels, filters, filters, 1, static_cast<const Multiplied<T>*>(packed)};
}

template <class T>
Weights<T> gradient_weights(const T* kernel, int64_t channels, int64_t filters) {
  return {kernel, filters, channels, 1, filters};
}

// The epilogue of a Forward or a PointwiseForward.
template <class T, class Args>
Finish<T> finish_of(const Args& args) {
  return {static_cast<const T*>(args.bias), static_cast<const T*>(args.residual), args.activation};
}

template <class T>
void product(const Pointwise& p, const PointwiseForward& args, Runner& runner) {
  pointwise_product<T>(p.images, p.pixels, p.channels_first,
                       forward_weights(static_cast<const T*>(args.pointwise_kernel), p.channels,
                                       p.filters, args.packed_kernel),
                       static_cast<const T*>(args.x), finish_of<T>(args), static_cast<T*>(args.y),
                       runner);
}

template <class T>
void product_backward(const Pointwise& p, const PointwiseBackward& args, Runner& runner) {
  const T* dy = static_cast<const T*>(args.dy);
  if (args.dx != nullptr)
    pointwise_product<T>(
        p.images, p.pixels, p.channels_first,
        gradient_weights(static_cast<const T*>(args.pointwise_kernel), p.channels, p.filters), dy,
        Finish<T>{}, static_cast<T*>(args.dx), runner);
  if (args.dpointwise != nullptr)
    pointwise_kernel_gradient<T>(p, static_cast<const T*>(args.x), dy,
                                 static_cast<T*>(args.dpointwise), runner);
  if (args.dbias != nullptr)
    bias_gradient(p.images, p.pixels, p.filters, p.channels_first, dy, static_cast<T*>(args.dbias),
                  runner);
}

template <class T>
int64_t packed_bytes(bool channels_first, int64_t depth, int64_t filters) {
  const Weights<T> w = forward_weights<T>(nullptr, depth, filters);
  return packed_weights_elements(w, channels_first) * static_cast<int64_t>(sizeof(Multiplied<T>));
}

template <class T>
void pack_kernel(bool channels_first, int64_t depth, int64_t filters, const void* kernel,
                 void* packed) {
  pack_weights(forward_weights(static_cast<const T*>(kernel), depth, filters), channels_first,
               static_cast<Multiplied<T>*>(packed));
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
