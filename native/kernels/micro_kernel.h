// The micro-kernels of a matrix product: one for each number of rows and of vectors of a register
// tile. They go along k once, through all of it, and store; then they go on with the tile below,
// since where k is short, what comes before and after it is a good part of the work.
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
  bool done() const { return lines_ <= 0; }
  void prefetch_next() {
    for (const int64_t left = max_of(0, lines_ - each_); lines_ > left; --lines_, next_ += 64)
      __builtin_prefetch(next_, 0, 2);
  }

 private:
  const char* next_ = nullptr;
  int64_t lines_ = 0, each_ = 0;
};

// The rows of a tile of C.
template <class T>
struct TileRows {
  T* first;
  int64_t step;
  T* row(int i) const { return first + i * step; }
};

// Prefetches the lines of a tile of C, so that they are here when the sums are done. Where a row
// begins within a line, the tile before has had that.
template <int ROWS, int WIDTH, class T>
[[gnu::always_inline]] inline void prefetch_tile(const TileRows<T>& out) {
  constexpr int kLine = 64 / static_cast<int>(sizeof(T));
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int last_of = WIDTH < kLine ? WIDTH : kLine; last_of <= WIDTH; last_of += kLine)
      __builtin_prefetch(out.row(i) + last_of - 1, 1);
}

// A column of register tiles, one below the other, of one panel of B. All that is of rows is that
// of the next tile to compute.
template <class P>
struct TileColumn {
  using B = typename P::B;
  static constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(B));

  int64_t depth;
  MatrixA<typename P::A> a;  // `col`: from what belongs to one row of the panel to the next's
  int64_t a_tile;            // elements of A from a tile to the next
  MatrixB<B> b;
  typename P::C* c;
  int64_t c_row, columns;
  typename P::Epilogue epilogue;
  // The next panel, which in a network was last read a whole call ago and comes from the third
  // cache: a line is asked for at a step of k, since more at once would hold up what is computed.
  const B* next;
  int64_t next_lines;
  Prefetcher ahead;

  // Goes on to the tile below one of `rows` rows.
  void go_below(int64_t rows) {
    a.data += a_tile;
    c += rows * c_row;
    epilogue.move(rows, 0, c_row);
    if (next_lines <= 0) return;
    next += depth / P::kSteps * kLine;
    next_lines -= depth / P::kSteps;
  }
};

// A tile of ROWS x (VECTORS * lanes) sums, or with HALF half a vector fewer. PACKS: fills the
// panel.
template <class P, int ROWS, int VECTORS, bool PACKS, bool HALF>
[[gnu::always_inline]] inline void compute_tile(const TileColumn<P>& column) {
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
  typename P::C* const c = column.c;
  const int64_t c_row = column.c_row, columns = column.columns;
  const typename P::Epilogue& e = column.epilogue;
  const TileRows<typename P::C> out{c, c_row};
  prefetch_tile<ROWS, VECTORS * kVec>(out);
  Vec<Sum> acc[ROWS][VECTORS];
  [[maybe_unused]] Half last[ROWS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kWhole; ++v) acc[i][v] = zero<Sum>();
    if constexpr (HALF) last[i] = Half{};
  }
  RowPointers<const typename P::A, ROWS> in(column.a.data, column.a.row);
  const int64_t a_col = column.a.col;
  B* panel = column.b.panels;
  [[maybe_unused]] const B* source = column.b.source;
  [[maybe_unused]] const int64_t source_row = column.b.source_row;
  // Where there is nothing to ask for, what is here anyway.
  const bool asks = column.next_lines > 0;
  const B* next = asks ? column.next : panel;
  const int64_t next_step = asks ? TileColumn<P>::kLine : 0;
  // What the row `r` after the one at `panel` adds, whose steps of A are `on` elements further on;
  // `steps` reads them.
  const auto add_row = [&](int r, int64_t on, auto steps) __attribute__((always_inline)) {
    const B* const from = panel + r * kPanelRow;
    Vec<B> b[VECTORS];
    [[maybe_unused]] typename HalfVecTypes<B>::Aligned b_last;
#pragma GCC unroll 4
    for (int v = 0; v < kWhole; ++v) {
      if constexpr (PACKS) {
        // Rows are pages apart, where no processor prefetches by itself.
        __builtin_prefetch(source + tuning::kFillAheadRows * source_row + v * kVec);
        b[v] = load(source + v * kVec);
        store(panel + v * kVec, b[v]);
      } else {
        b[v] = load(from + v * kVecB);
      }
    }
    if constexpr (PACKS) source += source_row;
    if constexpr (HALF) b_last = *reinterpret_cast<const LooseHalfB*>(from + kWhole * kVecB);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const typename P::Steps s = steps(in.row(i) + on);
#pragma GCC unroll 4
      for (int v = 0; v < kWhole; ++v) P::add(acc[i][v], s, b[v]);
      if constexpr (HALF) P::add(last[i], s, b_last);
    }
  };
  const int64_t panel_rows = column.depth / P::kSteps;
  const B* const end = panel + panel_rows * kPanelRow;
  const auto whole = [](const auto* steps) { return P::steps(steps); };
  // Most tiles: what is neither a multiplication nor an operand's load is done once for some rows,
  // since a thread with a busy neighbour on its core is bound by its number of instructions.
  constexpr int kRound = PACKS ? 1 : P::kPanelRows;
  const auto add_rounds = [&](int64_t col) __attribute__((always_inline)) {
    for (int64_t rounds = panel_rows / kRound; rounds > 0; --rounds) {
#pragma GCC unroll 4
      for (int r = 0; r < kRound; ++r) add_row(r, r * col, whole);
      panel += kRound * kPanelRow;
      in.advance(kRound * col);
    }
    next = panel;
  };
  if constexpr (kRound > 1) {
    if (!asks && a_col == P::kSteps)
      add_rounds(P::kSteps);
    else if (!asks && a_col == ROWS * P::kSteps)
      add_rounds(ROWS * P::kSteps);  // packed
  }
  for (; panel != end; panel += kPanelRow) {
    __builtin_prefetch(next, 0, 2);
    next += next_step;
    add_row(0, 0, whole);
    in.advance(a_col);
  }
  if constexpr (P::kSteps > 1) {
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kWhole; ++v) keep_in_register(acc[i][v]);
      if constexpr (HALF) keep_in_register(last[i]);
    }
    if (const int64_t rest = column.depth % P::kSteps; rest != 0)
      add_row(0, 0, [&](const auto* steps) { return P::first_steps(steps, rest); });
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

// `tiles` tiles of a column, as compute_tile() does.
template <class P, int ROWS, int VECTORS, bool PACKS, bool HALF>
[[gnu::noinline]] void micro(int64_t tiles, TileColumn<P>& column) {
  for (; tiles > 0; --tiles) {
    column.ahead.prefetch_next();
    compute_tile<P, ROWS, VECTORS, PACKS, HALF>(column);
    if (column.epilogue.late())
      column.epilogue.finish_late(ROWS, column.columns, column.c, column.c_row);
    column.go_below(ROWS);
  }
}

template <class P>
using Micro = void (*)(int64_t tiles, TileColumn<P>& column);

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
