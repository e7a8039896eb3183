// What one row of a panel of pairs of bfloat16 adds to a vector of sums, as the policy of a level
// adds it: by an instruction, or emulated. pair_add.cc compiles it once for each.
#pragma once
#include <cstdint>

namespace test {

struct PairAdd {
  int lanes;  // of float32
  // To `lanes` sums, of one pair of A's row and a pair of B a lane.
  void (*add)(uint32_t a, const uint32_t* b, float* sums);
};

}  // namespace test

namespace sepconv {

namespace v2_emulated {
test::PairAdd pair_add();
}
namespace v4_emulated {
test::PairAdd pair_add();
}
namespace v4_bf16 {
test::PairAdd pair_add();
}
namespace neon_emulated {
test::PairAdd pair_add();
}
namespace neon_bf16 {
test::PairAdd pair_add();
}

}  // namespace sepconv
