// The short way of most products: whole tiles, an A that is read where it is, filled panels of B
// that the first cache holds, and an epilogue that is the same for all rows.
//
// Where the depth is short, what comes before and after a tile's loop takes as long as the loop. So
// a tile is a function here, in which few values compete for registers, and what calls it changes
// nothing in memory that the next tile would wait for.
#pragma once
#include "micro_kernel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// The rows of a panel: whole rounds, and those that remain.
struct PanelRows {
  int64_t rounds, rest;
};

// A column of tiles, one below the other, of one panel of B.
template <class P>
struct PlainColumn {
  MatrixA<typename P::A> a;
  const typename P::B* panel;
  PanelRows depth;
  typename P::C* c;
  int64_t c_row;
  // The next panel, of which so many lines are asked for at each tile.
  const typename P::B* next;
  int64_t lines;
  typename P::Epilogue::Column epilogue;
};

template <class P, int ROWS, int VECTORS>
[[gnu::noinline]] void plain_tile(const typename P::A* a, int64_t a_row, const typename P::B* panel,
                                  PanelRows depth, typename P::C* c, int64_t c_row,
                                  const typename P::Epilogue::Column& epilogue) {
  using Sum = typename P::Sum;
  using B = typename P::B;
  constexpr int kVecB = kLanes<B>, kPanelRow = P::kVectors * kVecB, kRound = P::kPanelRows;
  Vec<Sum> acc[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) acc[i][v] = zero<Sum>();
  RowPointers<const typename P::A, ROWS> in(a, a_row);
  const auto add_row = [&](int r) __attribute__((always_inline)) {
    Vec<B> b[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) b[v] = load(panel + r * kPanelRow + v * kVecB);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const typename P::Steps s = P::steps(in.row(i) + r * P::kSteps);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) P::add(acc[i][v], s, b[v]);
    }
  };
  for (int64_t rounds = depth.rounds; rounds > 0; --rounds) {
#pragma GCC unroll 4
    for (int r = 0; r < kRound; ++r) add_row(r);
    panel += kRound * kPanelRow;
    in.advance(kRound * P::kSteps);
  }
  for (int64_t rows = depth.rest; rows > 0; --rows) {
    add_row(0);
    panel += kPanelRow;
    in.advance(P::kSteps);
  }
  epilogue.template put<VECTORS>(acc, c_row, TileRows<typename P::C>{c, c_row});
}

// Goes on with `tiles` tiles of a column.
template <class P, int ROWS, int VECTORS>
void plain_tiles(int64_t tiles, PlainColumn<P>& column, const typename P::Epilogue& whole) {
  constexpr int kColumns = VECTORS * kLanes<typename P::Sum>;
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(typename P::B));
  const int64_t a_row = column.a.row, c_row = column.c_row, lines = column.lines;
  const typename P::A* a = column.a.data;
  const typename P::B* next = column.next;
  typename P::C* c = column.c;
  const bool late = whole.late();
  for (; tiles > 0; --tiles) {
    for (int64_t line = 0; line < lines; ++line, next += kLine) __builtin_prefetch(next, 0, 2);
    prefetch_tile<ROWS, kColumns>(TileRows<typename P::C>{c, c_row});
    plain_tile<P, ROWS, VECTORS>(a, a_row, column.panel, column.depth, c, c_row, column.epilogue);
    if (late) whole.finish_late(ROWS, kColumns, c, c_row);
    a += ROWS * a_row;
    c += ROWS * c_row;
  }
  column.a.data = a;
  column.next = next;
  column.c = c;
}

// Those of 1 to kRows rows.
template <class P>
struct PlainTiles {
  void (*of[P::kRows + 1])(int64_t tiles, PlainColumn<P>& column,
                           const typename P::Epilogue& whole);
};

template <class P, int VECTORS, int... ROWS>
constexpr PlainTiles<P> plain_tiles_of(std::integer_sequence<int, ROWS...>) {
  return {{nullptr, plain_tiles<P, ROWS + 1, VECTORS>...}};
}

template <class P, int VECTORS>
inline constexpr PlainTiles<P> kPlainTiles =
    plain_tiles_of<P, VECTORS>(std::make_integer_sequence<int, P::kRows>());

// Those of `width` columns; null where these are no whole vectors.
template <class P, int VECTORS = P::kVectors>
const PlainTiles<P>* plain_tiles_for(int64_t width) {
  if (width == VECTORS * kLanes<typename P::Sum>) return &kPlainTiles<P, VECTORS>;
  if constexpr (VECTORS > 1) return plain_tiles_for<P, VECTORS - 1>(width);
  return nullptr;
}

// Whether tiles of P have the short way on this processor at all.
template <class P>
inline constexpr bool kPlain = P::kPanelRows > 1;

// Computes columns of a product, from the first one on, and returns how many. `panels`: B's.
template <class P>
int64_t plain_product(const RowParts& parts, int64_t columns, int64_t depth,
                      const MatrixA<typename P::A>& a, const typename P::B* panels,
                      typename P::C* c, int64_t c_row, const typename P::Epilogue& epilogue) {
  const int64_t panel_rows = depth / P::kSteps;
  const int64_t panel = depth * P::kColumns;
  if (depth == 0 || depth % P::kSteps != 0 || a.col != 1 || !epilogue.is_columns() ||
      panel * static_cast<int64_t>(sizeof(typename P::B)) > tuning::kPlainPanelBytes)
    return 0;
  const int64_t below = parts.count - parts.more;
  for (int64_t n = 0; n < columns; n += P::kColumns) {
    const PlainTiles<P>* tiles = plain_tiles_for<P>(min_of(P::kColumns, columns - n));
    if (tiles == nullptr) return n;
    const typename P::B* const first = panels + n * depth;
    PlainColumn<P> column{
        .a = a,
        .panel = first,
        .depth = {panel_rows / P::kPanelRows, panel_rows % P::kPanelRows},
        .c = c + n,
        .c_row = c_row,
        .next = first + panel,
        .lines = n + P::kColumns < columns ? ceil_div(panel_rows, parts.count) : 0,
        .epilogue = epilogue.column(n)};
    if (parts.more > 0) tiles->of[parts.each + 1](parts.more, column, epilogue);
    if (below > 0) tiles->of[parts.each](below, column, epilogue);
  }
  return columns;
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
