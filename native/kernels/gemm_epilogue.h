// What happens to the finished sums of a product, on the way from registers to memory.
//
// An epilogue, of whatever types, has
//
//   from(m, n, c_row) itself for the tile that begins at row m and column n of C
//   move(m, n, c_row) becomes that of the tile which begins m rows below and n columns beside
//   put<WHOLE>(sums, c_row, out)   stores the first WHOLE vectors of each of the tile's
//                     rows; row i begins at out.row(i)
//   put_partial(rows, columns, sums, sums_row, c, c_row)   stores a tile whose columns are no whole
//                     vectors; `sums` has rows of `sums_row`, which are read as whole vectors
//   buffered()        whether whole tiles, too, are left to put_partial()
//   late(), finish_late(rows, columns, c, c_row)   whether something is done to a stored tile, and
//                     that; put() and put_partial() leave it out
//   Column, column(n) what of it is the same for all rows of a column of tiles, which begins at
//                     column n: has put<WHOLE>() too
//   is_columns()      whether that is all that put() does
//
// What it adds to a sum, it adds in one order: the row's bias, the column's, the addend.
#pragma once
#include "activation.h"
#include "half.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Of sums of T that are stored as T, or rounded to a half type. What is added is of the stored
// type.
template <class T, class Stored = T>
struct Epilogue {
  const Stored* addend = nullptr;       // a matrix with the rows of C, or C itself
  const Stored* column_bias = nullptr;  // one value a column
  const Stored* row_bias = nullptr;     // one value a row
  Activation activation = Activation::none;

  static constexpr bool kRounds = !kSame<T, Stored>;

  struct Column {
    const Stored* bias;
    Activation activation;

    template <int WHOLE, int ROWS, int VECTORS, class Rows>
    [[gnu::always_inline]] void put(Vec<T> (&sums)[ROWS][VECTORS], int64_t c_row,
                                    const Rows& out) const {
      const Epilogue whole{.column_bias = bias, .activation = activation};
      whole.template put<WHOLE>(sums, c_row, out);
    }
  };
  bool is_columns() const { return addend == nullptr && row_bias == nullptr && !buffered(); }
  Column column(int64_t n) const {
    return {column_bias == nullptr ? nullptr : column_bias + n, activation};
  }

  // SiLU needs more registers than sums leave, so it is applied to a stored tile; but what is
  // rounded is rounded once, and no activation may come after that.
  bool buffered() const { return kRounds && activation == Activation::silu; }
  bool late() const { return !kRounds && activation == Activation::silu; }

  // Changes members one by one: a copy of the whole would read two of them at once, and a processor
  // waits where it stored them one by one just before.
  void move(int64_t m, int64_t n, int64_t c_row) {
    if (addend != nullptr) addend += m * c_row + n;
    if (column_bias != nullptr) column_bias += n;
    if (row_bias != nullptr) row_bias += m;
  }
  Epilogue from(int64_t m, int64_t n, int64_t c_row) const {
    Epilogue e = *this;
    e.move(m, n, c_row);
    return e;
  }

  // A choice is made once for all sums, which stay in registers: where k is short, this is a good
  // part of the work.
  template <int WHOLE, int ROWS, int VECTORS, class Rows>
  [[gnu::always_inline]] void put(Vec<T> (&sums)[ROWS][VECTORS], int64_t c_row,
                                  const Rows& out) const {
    constexpr int kVec = kLanes<T>;
    const auto each = [&](auto&& change) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int v = 0; v < WHOLE; ++v)
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; ++i) change(sums[i][v], i, v);
    };
    if (row_bias != nullptr) each([&](Vec<T>& sum, int i, int) { sum += real(row_bias[i]); });
    if (column_bias != nullptr) {
#pragma GCC unroll 4
      for (int v = 0; v < WHOLE; ++v) {
        const Vec<T> bias = load_real(column_bias + v * kVec);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; ++i) sums[i][v] += bias;
      }
    }
    if (addend != nullptr)
      each([&](Vec<T>& sum, int i, int v) { sum += load_real(addend + i * c_row + v * kVec); });
    activate_each<T>(early(activation), each);
    if (activation == Activation::hard_silu)
      each([](Vec<T>& sum, int, int) { sum = hard_silu<T>(sum); });
    each([&](Vec<T>& sum, int i, int v) { store_sum<Stored>(out.row(i) + v * kVec, sum); });
  }

  [[gnu::noinline]] void put_partial(int rows, int64_t columns, const T* sums, int sums_row,
                                     Stored* c, int64_t c_row) const {
    for (int64_t n = 0; n < columns; n += kLanes<T>) {
      const int64_t count = min_of(kLanes<T>, columns - n);
      const Vec<T> bias =
          column_bias == nullptr ? zero<T>() : load_real_first(column_bias + n, count);
      for (int i = 0; i < rows; ++i) {
        Vec<T> value = load(sums + i * sums_row + n);
        if (row_bias != nullptr) value += real(row_bias[i]);
        value += bias;
        if (addend != nullptr) value += load_real_first(addend + i * c_row + n, count);
        if (!late()) value = activate_fully<T>(value, activation);
        store_real_first(c + i * c_row + n, value, count);
      }
    }
  }

  void finish_late(int64_t rows, int64_t columns, Stored* c, int64_t c_row) const {
    if constexpr (!kRounds) activate_late(c, rows, c_row, columns, activation);
  }
};

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
