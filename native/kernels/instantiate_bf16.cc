// The kernels of an instruction set that multiplies bfloat16 in pairs (bf16_pairs.h), where they
// differ from those of the level below: products, the weights packed for them, and how fast the
// instruction is.
#include "bf16_pairs.h"
// That header says first what bfloat16 is multiplied as.
#include "kernel_table.h"
#include "plan.h"
#include "products.h"
#include "roofline.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

// The level below, whose weights are packed as float32.
KernelTable below;

// Packed weights as the level below has them. Panels have the same columns.
void unpack(bool channels_first, int64_t depth, int64_t filters, const BFloat16* packed,
            float* unpacked) {
  if (channels_first) {
    convert_run(packed, depth * filters, unpacked);
    return;
  }
  constexpr int64_t kWidth = kPanel<BFloat16>;
  static_assert(kWidth == kPanel<float>);
  for (int64_t panel = 0; panel < panels<BFloat16>(filters); ++panel) {
    const BFloat16* from = packed + panel * panel_elements<BFloat16>(depth);
    for (int64_t k = 0; k < depth; ++k, unpacked += kWidth)
      for (int64_t n = 0; n < kWidth; n += kLanes<float>) {
        Words pairs;
        __builtin_memcpy(&pairs, from + k / 2 * 2 * kWidth + 2 * n, sizeof pairs);
        store(unpacked + n, floats_of(k % 2 == 0 ? pairs << 16 : pairs & 0xffff0000u));
      }
  }
}

// Of other convolutions, which the level below computes.
void forward(const Geometry& g, const Forward& args, Runner& runner) {
  const int64_t depth = args.depth(g);
  const bool packed = args.packed_kernel != nullptr;
  const int64_t bytes = packed ? below.packed_bytes(g.channels_first, depth, args.filters) : 0;
  const Workspace<float> weights(bytes / static_cast<int64_t>(sizeof(float)));
  Forward call = args;
  if (packed) {
    unpack(g.channels_first, depth, args.filters, static_cast<const BFloat16*>(args.packed_kernel),
           weights.get());
    call.packed_kernel = weights.get();
  }
  below.forward(g, call, runner);
}

int64_t burst(int64_t rounds, void* sink) {
  return product_burst<PairProduct<float>>(rounds, static_cast<float*>(sink));
}

}  // namespace

void replace_bf16(KernelTable& table) {
  below = table;
  table.forward = &forward;
  table.pointwise_forward = &product<BFloat16>;
  table.pointwise_backward = &product_backward<BFloat16>;
  table.plan_pointwise = &plan_pointwise<BFloat16>;
  table.packed_bytes = &packed_bytes<BFloat16>;
  table.pack_kernel = &pack_kernel<BFloat16>;
  table.fma_burst = &burst;
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
