// The kernels of an instruction set that multiplies bfloat16 in pairs (bf16_pairs.h), where they
// differ from those of the level below: convolutions that are products, or have one in them, the
// weights packed for them, and how fast the instruction is.
#include "bf16_pairs.h"
// That header says first what bfloat16 is multiplied as.
#include "convolution.h"
#include "kernel_table.h"
#include "plan.h"
#include "products.h"
#include "roofline.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

// The level below, for depthwise steps alone.
KernelTable below;

void forward(const Geometry& g, const Forward& args, Runner& runner) {
  if (!args.mixes())
    below.forward(g, args, runner);
  else if (args.depthwise_kernel == nullptr)
    patches_forward<BFloat16>(g, args, runner);
  else
    separable_forward<BFloat16>(g, args, runner);
}

void backward(const Geometry& g, const Backward& args, Runner& runner) {
  if (args.separable())
    backward_all<BFloat16>(g, args, runner);
  else
    below.backward(g, args, runner);
}

int64_t burst(int64_t rounds, void* sink) {
  return product_burst<PairProduct<float>>(rounds, static_cast<float*>(sink));
}

}  // namespace

void replace_bf16(KernelTable& table) {
  below = table;
  table.forward = &forward;
  table.backward = &backward;
  table.pointwise_forward = &product<BFloat16>;
  table.pointwise_backward = &product_backward<BFloat16>;
  table.plan = &plan_operation<BFloat16>;
  table.plan_pointwise = &plan_pointwise<BFloat16>;
  table.packed_bytes = &packed_bytes<BFloat16>;
  table.pack_kernel = &pack_kernel<BFloat16>;
  table.fma_burst = &burst;
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
