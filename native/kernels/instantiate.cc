// The kernels of one instruction set and one dtype: compiled once for each, with
// SEPCONV_ISA_NAMESPACE, SEPCONV_VECTOR_BYTES, SEPCONV_REAL and SEPCONV_REPLACE (replace_f32 or
// replace_f64) given by the build.
#include "batch_norm.h"
#include "kernel_table.h"
#include "patches.h"
#include "plan.h"
#include "roofline.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

using T = SEPCONV_REAL;

void forward_all(const Geometry& g, const Forward& args, Runner& runner) {
  const T* kernel = static_cast<const T*>(args.depthwise_kernel);
  if (kernel == nullptr)
    patches_forward<T>(g, args, runner);
  else if (args.mixes())
    separable_forward<T>(g, args, runner);
  else
    depthwise_forward<T>(g, static_cast<const T*>(args.x), kernel, static_cast<const T*>(args.bias),
                         args.activation, static_cast<T*>(args.y), runner, args.overrule.kernel);
}

void product(const Pointwise& p, const PointwiseForward& args, Runner& runner) {
  pointwise_product<T>(p.images, p.pixels, p.channels_first,
                       forward_weights(static_cast<const T*>(args.pointwise_kernel), p.channels,
                                       p.filters, args.packed_kernel),
                       static_cast<const T*>(args.x), finish_of<T>(args), static_cast<T*>(args.y),
                       runner);
}

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
    bias_gradient<T>(p.images, p.pixels, p.filters, p.channels_first, dy,
                     static_cast<T*>(args.dbias), runner);
}

int64_t packed_bytes(bool channels_first, int64_t depth, int64_t filters) {
  const Weights<T> w = forward_weights<T>(nullptr, depth, filters);
  return packed_weights_elements(w, channels_first) * static_cast<int64_t>(sizeof(T));
}

void pack_kernel(bool channels_first, int64_t depth, int64_t filters, const void* kernel,
                 void* packed) {
  pack_weights(forward_weights(static_cast<const T*>(kernel), depth, filters), channels_first,
               static_cast<T*>(packed));
}

int64_t burst(int64_t rounds, void* sink) { return fma_burst(rounds, static_cast<T*>(sink)); }

void read(const void* from, int64_t count, void* sink) {
  read_stream(static_cast<const T*>(from), count, static_cast<T*>(sink));
}

void copy(const void* from, void* to, int64_t count) {
  copy_stream(static_cast<const T*>(from), static_cast<T*>(to), count);
}

}  // namespace

void SEPCONV_REPLACE(KernelTable& table) {
  table = {.forward = &forward_all,
           .backward = &backward_all<T>,
           .pointwise_forward = &product,
           .pointwise_backward = &product_backward,
           .plan = &plan_operation<T>,
           .plan_pointwise = &plan_pointwise<T>,
           .packed_bytes = &packed_bytes,
           .pack_kernel = &pack_kernel,
           .batch_norm_forward = &batch_norm_forward<T>,
           .batch_norm_backward = &batch_norm_backward<T>,
           .fma_burst = &burst,
           .read_stream = &read,
           .copy_stream = &copy};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
