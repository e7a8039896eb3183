// A product of other types than the kernels' own: int16 in pairs of k into int32. It shows that
// packing, micro-kernels and driver serve a policy with several steps of k a row of a panel, with a
// register tile of other sizes, and with results of another type than the sums. pair_product.cc
// compiles it once an instruction-set level, and test_products.cc holds it against a plain loop.
#pragma once
#include <cstdint>

namespace test {

struct PairProblem {
  int64_t rows, columns, depth;
  int64_t a_row, a_col;  // strides
  int64_t b_row, b_col;
  int64_t c_row;
  bool packs_a;  // as it has to be where a_col is not 1
  // B is packed before; or on the way, for which b_col is 1, into room for all its panels or for
  // one.
  enum class B { packed, on_the_way, one_panel } b;
};

// What is made of a sum: with the biases, where there are any, it is stored as int32; or shifted
// to the right and cut to what uint8 holds. Then all bits may be turned over, once it is stored.
struct PairResult {
  const int32_t* row_bias;
  const int32_t* column_bias;
  int shift;
  bool inverted;
};

struct PairProducts {
  // Elements that packed operands take.
  int64_t (*packed_a)(int64_t rows, int64_t depth);
  int64_t (*packed_b)(int64_t depth, int64_t columns);
  // `packed_a` and `packed_b` are scratch of so many elements, or of one panel.
  void (*multiply)(const PairProblem&, const PairResult&, const int16_t* a, const int16_t* b,
                   int16_t* packed_a, int16_t* packed_b, int32_t* c);
  void (*multiply_to_bytes)(const PairProblem&, const PairResult&, const int16_t* a,
                            const int16_t* b, int16_t* packed_a, int16_t* packed_b, uint8_t* c);
  int64_t tile_rows, tile_columns;
};

}  // namespace test

namespace sepconv {

// Of a level, by its namespace.
namespace v2 {
test::PairProducts pair_products();
}
namespace v3 {
test::PairProducts pair_products();
}
namespace v4 {
test::PairProducts pair_products();
}
namespace baseline {
test::PairProducts pair_products();
}

}  // namespace sepconv
