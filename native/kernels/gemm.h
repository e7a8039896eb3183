// Matrix products on packed panels: C[m, n] (+)= sum_k A[m, k] B[k, n], of the types that a policy
// says (gemm_policy.h).
//
// A micro-kernel holds kRows x kColumns sums in registers, and a step loads one row of a panel of B
// and broadcasts kRows values of A.
#pragma once
#include "micro_kernel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Prefetches contiguous memory that is read next, a little at each call of prefetch_next(), while
// there is something to compute.
class Prefetcher {
 public:
  Prefetcher() = default;
  // Prefetches nothing of an array so large that it would drive data in use out of the second
  // cache.
  template <class T>
  Prefetcher(const T* p, int64_t count) : next_(reinterpret_cast<const char*>(p)) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (bytes <= tuning::kAheadBytes) lines_ = ceil_div(bytes, 64);
  }
  // Sets the number of calls of prefetch_next().
  void share_out(int64_t calls) { each_ = ceil_div(lines_, max_of(1, calls)); }
  void prefetch_next() {
    for (const int64_t left = max_of(0, lines_ - each_); lines_ > left; --lines_, next_ += 64)
      __builtin_prefetch(next_, 0, 2);
  }

 private:
  const char* next_ = nullptr;
  int64_t lines_ = 0, each_ = 0;
};

// All rows of A by `columns` columns of B; `c` is element (0, 0). PACKED: A is as `pack_rows` has
// it. P may store in another way than A's usual policy, whose packing it shares.
template <bool PACKED = false, class A, class P = ProductOf<A>, class Source>
void multiply(int64_t rows, int64_t columns, int64_t depth, const MatrixA<A>& a,
              const MatrixB<typename P::B, Source>& b, typename P::C* c, int64_t c_row,
              const typename P::Epilogue& epilogue, Prefetcher ahead = {}) {
  using B = typename P::B;
  using Packing = ProductOf<A>;
  static_assert(P::kSteps == Packing::kSteps && P::kColumns == Packing::kColumns &&
                P::kRows == Packing::kRows);
  if (rows == 0) return;
  // Rows that lie on one set of the first cache: more than it has lines would drive each other out
  // at every step.
  const bool one_set = a.row * static_cast<int64_t>(sizeof(A)) % tuning::kOneSetBytes == 0;
  const RowParts groups(rows,
                        !PACKED && one_set ? min_of(tuning::kOneSetRows, P::kRows) : P::kRows);
  ahead.share_out(groups.count * panels<B>(columns));
  const bool late = epilogue.late();
  const int64_t steps = round_up(depth, P::kSteps);
  const typename P::Epilogue early = epilogue.early();
  for (int64_t n = 0; n < columns; n += P::kColumns) {
    const int64_t width = min_of(P::kColumns, columns - n);
    MatrixB<B> panel{b.once ? b.panels : b.panels + n * steps};
    const Micros<P>* table = &micros_for<P>(width);
    // The first micro-kernel can fill a panel whose rows are those of B.
    constexpr bool kFills = P::kSteps == 1 && kSame<B, Source>;
    if (kFills && b.source != nullptr && width == P::kColumns) {
      if constexpr (kFills) {
        panel.source = b.source + n;
        panel.source_row = b.source_row;
        table = &kMicros<P, P::kVectors, true>;
      }
    } else if (b.source != nullptr) {
      pack(depth, width, b.source + n, b.source_row, int64_t{1}, panel.panels);
    }
    // The next panel of weights, which in a network were last read a whole call ago and come from
    // the third cache: a line a step, since more at once would hold up what is computed.
    const B* ahead_of = panel.panels;
    const bool has_next = !b.once && b.source == nullptr && n + P::kColumns < columns;
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(B));
    const int64_t next_lines =
        has_next ? packed_elements<B>(depth, min_of(P::kColumns, columns - n - P::kColumns)) / kLine
                 : 0;
    int64_t asked = 0;
    int64_t m = 0;
    for (int64_t group = 0; group < groups.count; ++group) {
      const int64_t count = groups.rows(group);
      const MatrixA<A> here = PACKED ? MatrixA<A>{a.data + m * steps, P::kSteps, count * P::kSteps}
                                     : MatrixA<A>{a.data + m * a.row, a.row, P::kSteps * a.col};
      const typename P::Epilogue e = early.from(m, n, c_row);
      typename P::C* tile = c + m * c_row + n;
      ahead.prefetch_next();
      panel.next =
          asked < next_lines ? panel.panels + P::kColumns * steps + asked * kLine : ahead_of;
      panel.next_step = asked < next_lines ? kLine : 0;
      asked += steps / P::kSteps;
      table->of[count](depth, here, panel, tile, c_row, width, e);
      table = &micros_for<P>(width);
      if (late) epilogue.finish_late(count, width, tile, c_row);
      m += count;
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
