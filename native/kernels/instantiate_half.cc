// The kernels of one instruction set for the half types: those of instantiate.cc, which compute in
// float32 and read and write half types themselves.
//
// So no whole tensor is ever held in float32, and sums are those of float32, rounded once. Compiled
// once a level, with SEPCONV_ISA_NAMESPACE and SEPCONV_VECTOR_BYTES given by the build.
#include "batch_norm.h"
#include "convolution.h"
#include "kernel_table.h"
#include "plan.h"
#include "products.h"
#include "roofline.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

int64_t burst(int64_t rounds, void* sink) { return fma_burst(rounds, static_cast<float*>(sink)); }

template <class Half>
constexpr KernelTable half_table() {
  return {.forward = &forward_all<Half>,
          .backward = &backward_all<Half>,
          .pointwise_forward = &product<Half>,
          .pointwise_backward = &product_backward<Half>,
          .plan = &plan_operation<Half>,
          .plan_pointwise = &plan_pointwise<Half>,
          .packed_bytes = &packed_bytes<Half>,
          .pack_kernel = &pack_kernel<Half>,
          .fma_burst = &burst,
          .batch_norm_forward = &batch_norm_forward<Half>,
          .batch_norm_backward = &batch_norm_backward<Half>};
}

}  // namespace

void replace_bf16(KernelTable& table) { table = half_table<BFloat16>(); }
void replace_f16(KernelTable& table) { table = half_table<Float16>(); }

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
