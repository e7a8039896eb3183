// The micro-kernels of a matrix product: one for each number of rows and of vectors of a register
// tile. They go along k once, through all of it, and store.
#pragma once
#include <utility>

#include "gemm_pack.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// One pointer for every three rows: an x86 address can add zero, one or two row strides, so that
// neither registers nor memory have to hold the offsets of all rows.
template <class T, int ROWS>
struct RowPointers {
  static constexpr int kCount = (ROWS + 2) / 3;
  T* at[kCount];
  const int64_t step;

  RowPointers(T* first, int64_t row) : step(row) {
#pragma GCC unroll 4
    for (int p = 0; p < kCount; ++p) at[p] = first + 3 * p * row;
    keep();
  }
  T* row(int i) const { return at[i / 3] + i % 3 * step; }
  void advance(int64_t elements) {
#pragma GCC unroll 4
    for (int p = 0; p < kCount; ++p) at[p] += elements;
    keep();
  }

 private:
  // Keeps the compiler from computing the offsets again.
  void keep() {
#pragma GCC unroll 4
    for (int p = 0; p < kCount; ++p) asm("" : "+r"(at[p]));
  }
};

// ROWS x (VECTORS * lanes) sums, or with HALF half a vector fewer. `a.col` is from what belongs to
// one row of a panel to what belongs to the next. PACKS: fills the panel.
template <class P, int ROWS, int VECTORS, bool PACKS = false, bool HALF = false>
[[gnu::noinline]] void micro(int64_t depth, const MatrixA<typename P::A>& a,
                             const MatrixB<typename P::B>& matrix, typename P::C* c, int64_t c_row,
                             int64_t columns, const typename P::Epilogue& e) {
  using Sum = typename P::Sum;
  using B = typename P::B;
  static_assert(P::kSteps * sizeof(B) == sizeof(Sum) && P::kColumns == P::kVectors * kLanes<Sum>);
  static_assert(!PACKS || P::kSteps == 1, "B's rows are stored as they are");
  // Columns of a vector of sums, and elements of the vector of B that belongs to it.
  constexpr int kVec = kLanes<Sum>, kVecB = kLanes<B>, kWhole = VECTORS - HALF;
  constexpr int kPanelRow = P::kVectors * kVecB;
  using Half = typename HalfVecTypes<Sum>::Aligned;
  using LooseHalf = typename HalfVecTypes<Sum>::Unaligned;
  using LooseHalfB = typename HalfVecTypes<B>::Unaligned;
  {
    // Prefetches C's lines, so that they are here when the sums are done.
    const RowPointers<typename P::C, ROWS> out(c, c_row);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) __builtin_prefetch(out.row(i) + v * kVec, 1);
  }
  Vec<Sum> acc[ROWS][VECTORS];
  [[maybe_unused]] Half last[ROWS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kWhole; ++v) acc[i][v] = zero<Sum>();
    if constexpr (HALF) last[i] = Half{};
  }
  RowPointers<const typename P::A, ROWS> in(a.data, a.row);
  const int64_t a_col = a.col;
  B* panel = matrix.panels;
  [[maybe_unused]] const B* source = matrix.source;
  const B* next = matrix.next;
  const int64_t next_step = matrix.next_step;
  // What the row at `panel` adds; `steps` gets the steps of a row of A.
  const auto add_row = [&](auto steps) __attribute__((always_inline)) {
    Vec<B> b[VECTORS];
    [[maybe_unused]] typename HalfVecTypes<B>::Aligned b_last;
#pragma GCC unroll 4
    for (int v = 0; v < kWhole; ++v) {
      if constexpr (PACKS) {
        // Rows are pages apart, where no processor prefetches by itself.
        __builtin_prefetch(source + tuning::kFillAheadRows * matrix.source_row + v * kVec);
        b[v] = load(source + v * kVec);
        store(panel + v * kVec, b[v]);
      } else {
        b[v] = load(panel + v * kVecB);
      }
    }
    if constexpr (PACKS) source += matrix.source_row;
    if constexpr (HALF) b_last = *reinterpret_cast<const LooseHalfB*>(panel + kWhole * kVecB);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const typename P::Steps s = steps(in.row(i));
#pragma GCC unroll 4
      for (int v = 0; v < kWhole; ++v) P::add(acc[i][v], s, b[v]);
      if constexpr (HALF) P::add(last[i], s, b_last);
    }
  };
  for (const B* const end = panel + depth / P::kSteps * kPanelRow; panel != end;
       panel += kPanelRow) {
    __builtin_prefetch(next, 0, 2);
    next += next_step;
    add_row([](const auto* from) { return P::steps(from); });
    in.advance(a_col);
  }
  if constexpr (P::kSteps > 1) {
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kWhole; ++v) keep_in_register(acc[i][v]);
      if constexpr (HALF) keep_in_register(last[i]);
    }
    if (const int64_t rest = depth % P::kSteps; rest != 0)
      add_row([&](const auto* from) { return P::first_steps(from, rest); });
  }
  if (e.buffered() || (!HALF && columns != VECTORS * kVec)) {
    Sum sums[ROWS * VECTORS * kVec];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      Sum* const row = sums + i * VECTORS * kVec;
#pragma GCC unroll 4
      for (int v = 0; v < kWhole; ++v) store(row + v * kVec, acc[i][v]);
      if constexpr (HALF) {
        *reinterpret_cast<LooseHalf*>(row + kWhole * kVec) = last[i];
        *reinterpret_cast<LooseHalf*>(row + kWhole * kVec + kVec / 2) = Half{};
      }
    }
    e.put_partial(ROWS, columns, sums, VECTORS * kVec, c, c_row);
    return;
  }
  const RowPointers<typename P::C, ROWS> out(c, c_row);
  e.template put<kWhole>(acc, c_row, out);
  if constexpr (HALF) {
    constexpr int kHalf = kVec / 2, kBefore = kWhole * kVec;
    Sum sums[(ROWS + 1) * kHalf];  // its last row is read as a whole vector
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) *reinterpret_cast<LooseHalf*>(sums + i * kHalf) = last[i];
    *reinterpret_cast<LooseHalf*>(sums + ROWS * kHalf) = Half{};
    e.from(0, kBefore, c_row).put_partial(ROWS, columns - kBefore, sums, kHalf, c + kBefore, c_row);
  }
}

template <class P>
using Micro = void (*)(int64_t, const MatrixA<typename P::A>&, const MatrixB<typename P::B>&,
                       typename P::C*, int64_t, int64_t, const typename P::Epilogue&);

// The micro-kernels of 1 to kRows rows.
template <class P>
struct Micros {
  Micro<P> of[P::kRows + 1];
};

template <class P, int VECTORS, bool PACKS, bool HALF, int... ROWS>
constexpr Micros<P> micros(std::integer_sequence<int, ROWS...>) {
  return {{nullptr, micro<P, ROWS + 1, VECTORS, PACKS, HALF>...}};
}

template <class P, int VECTORS, bool PACKS = false, bool HALF = false>
inline constexpr Micros<P> kMicros =
    micros<P, VECTORS, PACKS, HALF>(std::make_integer_sequence<int, P::kRows>());

// Those for `width` columns, of VECTORS vectors or more.
template <class P, int VECTORS = 1>
const Micros<P>& micros_for(int64_t width) {
  constexpr int64_t kVec = kLanes<typename P::Sum>;
  if constexpr (VECTORS < P::kVectors)
    if (width > VECTORS * kVec) return micros_for<P, VECTORS + 1>(width);
  if constexpr (P::kHalves)
    if (width <= VECTORS * kVec - kVec / 2) return kMicros<P, VECTORS, false, true>;
  return kMicros<P, VECTORS>;
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
