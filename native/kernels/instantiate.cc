// The kernels of one instruction set and one dtype: compiled once for each, with
// SEPCONV_ISA_NAMESPACE, SEPCONV_VECTOR_BYTES, SEPCONV_REAL and SEPCONV_REPLACE (replace_f32 or
// replace_f64) given by the build.
#include "batch_norm.h"
#include "convolution.h"
#include "kernel_table.h"
#include "normalized.h"
#include "plan.h"
#include "products.h"
#include "roofline.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

using T = SEPCONV_REAL;

int64_t burst(int64_t rounds, void* sink) { return fma_burst(rounds, static_cast<T*>(sink)); }

void read(const void* from, int64_t count, void* sink) {
  read_stream(static_cast<const T*>(from), count, static_cast<T*>(sink));
}

void copy(const void* from, void* to, int64_t count) {
  copy_stream(static_cast<const T*>(from), static_cast<T*>(to), count);
}

}  // namespace

void SEPCONV_REPLACE(KernelTable& table) {
  table = {.forward = &forward_all<T>,
           .backward = &backward_all<T>,
           .pointwise_forward = &product<T>,
           .pointwise_backward = &product_backward<T>,
           .plan = &plan_operation<T>,
           .plan_pointwise = &plan_pointwise<T>,
           .packed_bytes = &packed_bytes<T>,
           .pack_kernel = &pack_kernel<T>,
           .fma_burst = &burst,
           .batch_norm_forward = &batch_norm_forward<T>,
           .batch_norm_backward = &batch_norm_backward<T>,
           .normalized_depthwise_backward = &normalized_depthwise_backward<T>,
           .normalized_product_backward = &normalized_product_backward<T>,
           .read_stream = &read,
           .copy_stream = &copy};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
