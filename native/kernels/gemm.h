// Matrix products on packed panels: C[m, n] (+)= sum_k A[m, k] B[k, n], of the types that a policy
// says (gemm_policy.h).
//
// A micro-kernel holds kRows x kColumns sums in registers, and a step loads one row of a panel of B
// and broadcasts kRows values of A.
#pragma once
#include "plain_product.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

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
  const RowParts parts(rows, !PACKED && one_set ? min_of(tuning::kOneSetRows, P::kRows) : P::kRows);
  int64_t computed = 0;
  if constexpr (kPlain<P> && !PACKED)
    if (b.source == nullptr && !b.once && ahead.done())
      computed = plain_product<P>(parts, columns, depth, a, b.panels, c, c_row, epilogue);
  if (computed == columns) return;
  ahead.share_out(parts.count * panels<B>(columns));
  const int64_t steps = round_up(depth, P::kSteps);
  TileColumn<P> column{.depth = depth,
                       .a = a,
                       .a_tile = 0,
                       .b = {},
                       .c = c,
                       .c_row = c_row,
                       .columns = columns,
                       .epilogue = epilogue,
                       .next = nullptr,
                       .next_lines = 0,
                       .ahead = ahead};
  for (int64_t n = computed; n < columns; n += P::kColumns) {
    const int64_t width = min_of(P::kColumns, columns - n);
    column.a.data = a.data;
    column.b = {b.once ? b.panels : b.panels + n * steps};
    column.c = c + n;
    column.columns = width;
    column.epilogue = epilogue.from(0, n, c_row);
    const bool has_next = !b.once && b.source == nullptr && n + P::kColumns < columns;
    const int64_t next_width = has_next ? min_of(P::kColumns, columns - n - P::kColumns) : 0;
    column.next = column.b.panels + P::kColumns * steps;
    column.next_lines = packed_elements<B>(depth, next_width) / column.kLine;
    const auto compute = [&](const Micros<P>& micros, int64_t tiles, int64_t height) {
      if (tiles == 0) return;
      column.a.row = PACKED ? P::kSteps : a.row;
      column.a.col = P::kSteps * (PACKED ? height : a.col);
      column.a_tile = height * (PACKED ? steps : a.row);
      micros.of[height](tiles, column);
    };
    const Micros<P>& micros = micros_for<P>(width);
    int64_t tall = parts.more, rest = parts.count - parts.more;
    // The first tile can fill a panel whose rows are those of B.
    constexpr bool kFills = P::kSteps == 1 && kSame<B, Source>;
    if (kFills && b.source != nullptr && width == P::kColumns) {
      if constexpr (kFills) {
        column.b.source = b.source + n;
        column.b.source_row = b.source_row;
        compute(kMicros<P, P::kVectors, true>, 1, parts.rows(0));
        --(tall > 0 ? tall : rest);
      }
    } else if (b.source != nullptr) {
      pack(depth, width, b.source + n, b.source_row, int64_t{1}, column.b.panels);
    }
    compute(micros, tall, parts.each + 1);
    compute(micros, rest, parts.each);
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
