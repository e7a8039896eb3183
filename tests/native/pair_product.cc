// The product of pair_product.h, compiled once an instruction-set level. Like the kernels, it uses
// nothing of the standard library that the linker might keep the highest level's copy of.
#include "pair_product.h"

#include "../../native/kernels/gemm.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

inline void keep(int32_t sum, int, int32_t* to) { *to = sum; }
inline void keep(int32_t sum, int shift, uint8_t* to) {
  *to = static_cast<uint8_t>(max_of(0, min_of(sum >> shift, 255)));
}

template <class Stored>
struct PairEpilogue {
  test::PairResult result;

  void move(int64_t m, int64_t n, int64_t) {
    if (result.row_bias != nullptr) result.row_bias += m;
    if (result.column_bias != nullptr) result.column_bias += n;
  }
  PairEpilogue from(int64_t m, int64_t n, int64_t c_row) const {
    PairEpilogue e = *this;
    e.move(m, n, c_row);
    return e;
  }
  template <int WHOLE, int ROWS, int VECTORS, class Rows>
  void put(const Vec<int32_t> (&sums)[ROWS][VECTORS], int64_t, const Rows& out) const {
    constexpr int kVec = kLanes<int32_t>;
    for (int i = 0; i < ROWS; ++i)
      for (int n = 0; n < WHOLE * kVec; ++n)
        put_one(sums[i][n / kVec][n % kVec], i, n, out.row(i) + n);
  }
  void put_partial(int rows, int64_t columns, const int32_t* sums, int sums_row, Stored* c,
                   int64_t c_row) const {
    for (int i = 0; i < rows; ++i)
      for (int64_t n = 0; n < columns; ++n)
        put_one(sums[i * sums_row + n], i, n, c + i * c_row + n);
  }
  using Column = PairEpilogue;
  bool is_columns() const { return result.row_bias == nullptr; }
  Column column(int64_t n) const { return from(0, n, 0); }
  bool buffered() const { return false; }
  bool late() const { return result.inverted; }
  void finish_late(int64_t rows, int64_t columns, Stored* c, int64_t c_row) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t n = 0; n < columns; ++n)
        c[i * c_row + n] = static_cast<Stored>(~c[i * c_row + n]);
  }

 private:
  void put_one(int32_t sum, int i, int64_t n, Stored* to) const {
    if (result.row_bias != nullptr) sum += result.row_bias[i];
    if (result.column_bias != nullptr) sum += result.column_bias[n];
    keep(sum, result.shift, to);
  }
};

template <class Stored>
struct PairProduct {
  using A = int16_t;
  using B = int16_t;
  using Sum = int32_t;
  using C = Stored;
  using Epilogue = PairEpilogue<Stored>;
  static constexpr int kSteps = 2, kRows = 5, kVectors = 3;
  static constexpr int kColumns = kVectors * kLanes<Sum>;
  static constexpr bool kHalves = true;
  static constexpr int kPanelRows = 3;

  struct Steps {
    int32_t first, second;
  };
  static Steps steps(const A* a) { return {a[0], a[1]}; }
  static Steps first_steps(const A* a, int64_t) { return {a[0], 0}; }  // one of two
  template <class Sums, class Pairs>
  static void add(Sums& sums, Steps a, const Pairs& b) {
    Sums pairs;
    __builtin_memcpy(&pairs, &b, sizeof pairs);
    // The first of a pair is the lower half of a sum's lane, since bytes are little endian.
    sums += (pairs << 16 >> 16) * a.first + (pairs >> 16) * a.second;
  }
};

}  // namespace

template <>
struct OperandProduct<int16_t> {
  using Type = PairProduct<int32_t>;
};

namespace {

int64_t packed_a(int64_t rows, int64_t depth) { return packed_rows_elements<int16_t>(rows, depth); }
int64_t packed_b(int64_t depth, int64_t columns) {
  return packed_elements<int16_t>(depth, columns);
}

template <class Stored>
void multiply_pairs(const test::PairProblem& p, const test::PairResult& result, const int16_t* a,
                    const int16_t* b, int16_t* packed_a, int16_t* packed_b, Stored* c) {
  using Policy = PairProduct<Stored>;
  MatrixB<int16_t> matrix{packed_b};
  if (p.b == test::PairProblem::B::packed)
    pack(p.depth, p.columns, b, p.b_row, p.b_col, packed_b);
  else
    matrix = {packed_b, b, p.b_row, p.b == test::PairProblem::B::one_panel};
  const MatrixA<int16_t> rows{a, p.a_row, p.a_col};
  if (!p.packs_a) {
    multiply<false, int16_t, Policy>(p.rows, p.columns, p.depth, rows, matrix, c, p.c_row,
                                     {result});
    return;
  }
  pack_rows(p.rows, p.depth, rows, packed_a);
  multiply<true, int16_t, Policy>(p.rows, p.columns, p.depth, {packed_a, 1, 1}, matrix, c, p.c_row,
                                  {result});
}

}  // namespace

test::PairProducts pair_products() {
  return {&packed_a,
          &packed_b,
          &multiply_pairs<int32_t>,
          &multiply_pairs<uint8_t>,
          PairProduct<int32_t>::kRows,
          PairProduct<int32_t>::kColumns};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
