// The additions of pair_add.h, compiled once a level that multiplies bfloat16 in pairs.
#include "pair_add.h"

#include "../../native/kernels/bf16_pairs.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

test::PairAdd pair_add() {
  return {kLanes<float>, [](uint32_t a, const uint32_t* b, float* sums) {
            Vec<BFloat16> pairs;
            __builtin_memcpy(&pairs, b, sizeof pairs);
            Vec<float> all = load(sums);
            PairProduct<float>::add(all, a, pairs);
            store(sums, all);
          }};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
