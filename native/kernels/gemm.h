// Matrix products on packed panels: C[m, n] (+)= sum_k A[m, k] B[k, n].
//
// B is packed into panels of kPanel columns, [ceil(n / kPanel)][k][kPanel], the last one filled
// up with zeros. A is read in place with any strides, kRows rows at a time: a micro-kernel holds
// kRows x kPanel sums in registers, and a step loads one row of a panel and broadcasts kRows
// values of A.
#pragma once
#include <utility>

#include "../tuning.h"
#include "activation.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

inline constexpr int kPanelVectors = 2;
inline constexpr int kRows = kRegisters == 32 ? 12 : 6;

template <class T>
inline constexpr int kPanel = kPanelVectors * kLanes<T>;

// What happens to a finished tile of sums.
template <class T>
struct Epilogue {
  const T* addend = nullptr;       // a matrix with the rows of C, or C itself
  const T* column_bias = nullptr;  // one value a column
  const T* row_bias = nullptr;     // one value a row
  Activation activation = Activation::none;

  bool plain() const {
    return addend == nullptr && column_bias == nullptr && row_bias == nullptr &&
           activation == Activation::none;
  }
};

template <class T>
struct MatrixA {
  const T* data;
  int64_t row, col;  // strides
  MatrixA at(int64_t m, int64_t k) const { return {data + m * row + k * col, row, col}; }
};

// Rows shared out evenly over micro-kernels: 14 as 5 + 5 + 4, not 6 + 6 + 2.
struct RowGroups {
  int64_t count, each, more;
  explicit RowGroups(int64_t rows, int64_t most = kRows)
      : count(ceil_div(rows, most)), each(rows / max_of(1, count)), more(rows - each * count) {}
  int64_t rows(int64_t group) const { return each + (group < more); }
};

template <class T>
inline int64_t panels(int64_t columns) {
  return ceil_div(columns, kPanel<T>);
}

template <class T>
inline int64_t packed_elements(int64_t depth, int64_t columns) {
  return panels<T>(columns) * depth * kPanel<T>;
}

// 4 x 4 elements turned: from[n * step + k] to to[k * kPanel + n]. Vectors of 16 bytes, whatever
// the level, since wider ones need more steps to turn.
inline void turn_block(const float* from, int64_t step, float* to) {
  typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
  [[maybe_unused]] typedef int Order __attribute__((vector_size(16)));
  const auto row = [&](int n) { return *reinterpret_cast<const Four*>(from + n * step); };
  const Four a = row(0), b = row(1), c = row(2), d = row(3);
#if defined(__clang__)
#define SEPCONV_SHUFFLE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
#define SEPCONV_SHUFFLE(x, y, i, j, k, l) __builtin_shuffle(x, y, Order{i, j, k, l})
#endif
  const Four ab_low = SEPCONV_SHUFFLE(a, b, 0, 4, 1, 5),
             ab_high = SEPCONV_SHUFFLE(a, b, 2, 6, 3, 7);
  const Four cd_low = SEPCONV_SHUFFLE(c, d, 0, 4, 1, 5),
             cd_high = SEPCONV_SHUFFLE(c, d, 2, 6, 3, 7);
  const auto put = [&](int k, Four v) { *reinterpret_cast<Four*>(to + k * kPanel<float>) = v; };
  put(0, SEPCONV_SHUFFLE(ab_low, cd_low, 0, 1, 4, 5));
  put(1, SEPCONV_SHUFFLE(ab_low, cd_low, 2, 3, 6, 7));
  put(2, SEPCONV_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5));
  put(3, SEPCONV_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7));
#undef SEPCONV_SHUFFLE
}

inline void turn_block(const double* from, int64_t step, double* to) {
  for (int64_t n = 0; n < 4; ++n)
    for (int64_t k = 0; k < 4; ++k) to[k * kPanel<double> + n] = from[n * step + k];
}

// Packs a panel of `width` columns of B where B is transposed: its columns are contiguous, `col`
// apart.
template <class T>
void pack_turned(int64_t depth, int64_t width, const T* from, int64_t col, T* panel) {
  constexpr int64_t kWidth = kPanel<T>, kLine = 64 / static_cast<int64_t>(sizeof(T));
  // A line of every column at a time: their lines in the panel stay in the first cache meanwhile.
  for (int64_t k0 = 0; k0 < depth; k0 += kLine) {
    const int64_t k1 = min_of(k0 + kLine, depth);
    int64_t n = 0;
    for (; n + 4 <= width; n += 4) {
      // Columns are pages apart and too many for a processor to follow.
      for (int64_t i = n; i < n + 4; ++i) __builtin_prefetch(from + i * col + k0 + 8 * kLine, 0, 2);
      int64_t k = k0;
      for (; k + 4 <= k1; k += 4) turn_block(from + k + n * col, col, panel + k * kWidth + n);
      for (; k < k1; ++k)
        for (int64_t i = n; i < n + 4; ++i) panel[k * kWidth + i] = from[k + i * col];
    }
    for (; n < width; ++n)
      for (int64_t k = k0; k < k1; ++k) panel[k * kWidth + n] = from[k + n * col];
  }
}

// Packs B, whose element (k, n) is b[k * row + n * col]. Blocks of B's rows go through all panels
// in turn, so that B is read along its rows.
template <class T>
void pack(int64_t depth, int64_t columns, const T* b, int64_t row, int64_t col, T* packed) {
  constexpr int64_t kWidth = kPanel<T>, kBlock = 32;
  const int64_t whole = columns / kWidth * kWidth;
  if (whole < columns) fill_zero(packed + whole * depth, depth * kWidth);
  if (row == 1 && col != 1) {
    for (int64_t n = 0; n < columns; n += kWidth)
      pack_turned(depth, min_of(kWidth, columns - n), b + n * col, col, packed + n * depth);
    return;
  }
  for (int64_t k0 = 0; k0 < depth; k0 += kBlock) {
    const int64_t k1 = min_of(k0 + kBlock, depth);
    for (int64_t n0 = 0; n0 < columns; n0 += kWidth) {
      T* panel = packed + n0 * depth;
      const T* from = b + n0 * col;
      const int64_t width = min_of(kWidth, columns - n0);
      if (col == 1 && width == kWidth) {
        for (int64_t k = k0; k < k1; ++k)
#pragma GCC unroll 4
          for (int v = 0; v < kPanelVectors; ++v)
            store(panel + k * kWidth + v * kLanes<T>, load(from + k * row + v * kLanes<T>));
      } else {
        for (int64_t k = k0; k < k1; ++k)
          for (int64_t n = 0; n < width; ++n) panel[k * kWidth + n] = from[k * row + n * col];
      }
    }
  }
}

// Packs A's rows, which lie beside each other (a.row is 1), a group's after the other:
// [group][k][row]. Where they are read again and again, they then come one after the other, not a
// row of memory apart. Whole vectors are written, and what is too much written over by the next
// row: `packed` has room for a vector more.
template <class T>
void pack_rows(int64_t rows, int64_t depth, const MatrixA<T>& a, T* packed) {
  const RowGroups groups(rows);
  int64_t m = 0;
  for (int64_t group = 0; group < groups.count; ++group) {
    const int64_t count = groups.rows(group);
    const T* from = a.data + m;
    for (int64_t k = 0; k < depth; ++k, from += a.col, packed += count)
      for (int64_t i = 0; i < count; i += kLanes<T>)
        store(packed + i, load_first(from + i, min_of(kLanes<T>, count - i)));
    m += count;
  }
}

// Stores a tile whose columns are no whole vectors; `sums` has rows of `sums_row`.
template <class T>
[[gnu::noinline]] void finish_partial(int rows, int64_t columns, const T* sums, int sums_row, T* c,
                                      int64_t c_row, const Epilogue<T>& e) {
  for (int64_t n = 0; n < columns; n += kLanes<T>) {
    const int64_t count = min_of(kLanes<T>, columns - n);
    const Vec<T> bias = e.column_bias == nullptr ? zero<T>() : load_first(e.column_bias + n, count);
    for (int i = 0; i < rows; ++i) {
      Vec<T> value = load(sums + i * sums_row + n) + bias;
      if (e.row_bias != nullptr) value += e.row_bias[i];
      if (e.addend != nullptr) value += load_first(e.addend + i * c_row + n, count);
      store_first(c + i * c_row + n, activate<T>(value, e.activation), count);
    }
  }
}

// A pointer for every three rows: x86 adds nought, one or two times a step in an address, so that
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
  // Compilers would put the offsets back.
  void keep() {
#pragma GCC unroll 4
    for (int p = 0; p < kCount; ++p) asm("" : "+r"(at[p]));
  }
};

// B as its panels, and where they are not filled yet, as what they are to be filled with on the
// way: element (k, n) of B is source[k * source_row + n]. `once`: there is room for one panel, and
// each is filled where the one before it was.
template <class T>
struct MatrixB {
  T* panels;
  const T* source = nullptr;
  int64_t source_row = 0;
  bool once = false;
};

// B whose panels are filled, and which nobody writes to.
template <class T>
MatrixB<T> filled(const T* panels) {
  return {const_cast<T*>(panels)};
}

// Half a vector, for the last columns of a tile: where a processor works through a wide vector in
// two steps, it costs half as much.
template <class T>
struct HalfVecTypes {
  typedef T Aligned __attribute__((vector_size(SEPCONV_VECTOR_BYTES / 2)));
  typedef T Unaligned
      __attribute__((vector_size(SEPCONV_VECTOR_BYTES / 2), aligned(alignof(T)), may_alias));
};
template <class T>
inline constexpr bool kHalves = SEPCONV_VECTOR_BYTES == 64 && sizeof(T) == 4;

// ROWS x (VECTORS * lanes) sums, or with HALF half a vector fewer; a panel has rows of kPanel.
// PLAIN: `e` is. PACKS: fills the panel.
template <class T, int ROWS, int VECTORS, bool PLAIN, bool PACKS = false, bool HALF = false>
[[gnu::noinline]] void micro(int64_t depth, const MatrixA<T>& a, const MatrixB<T>& matrix, T* c,
                             int64_t c_row, int64_t columns, const Epilogue<T>& e) {
  constexpr int kVec = kLanes<T>, kWhole = VECTORS - HALF;
  using Half = typename HalfVecTypes<T>::Aligned;
  using LooseHalf = typename HalfVecTypes<T>::Unaligned;
  {
    // C's lines are asked for now, so that they are here when the sums are.
    const RowPointers<T, ROWS> out(c, c_row);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) __builtin_prefetch(out.row(i) + v * kVec, 1);
  }
  Vec<T> acc[ROWS][VECTORS];
  [[maybe_unused]] Half last[ROWS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kWhole; ++v) acc[i][v] = zero<T>();
    if constexpr (HALF) last[i] = Half{};
  }
  RowPointers<const T, ROWS> in(a.data, a.row);
  const int64_t a_col = a.col;
  T* panel = matrix.panels;
  [[maybe_unused]] const T* source = matrix.source;
  for (const T* const end = panel + depth * kPanel<T>; panel != end; panel += kPanel<T>) {
    Vec<T> b[VECTORS];
    [[maybe_unused]] Half b_last;
#pragma GCC unroll 4
    for (int v = 0; v < kWhole; ++v) {
      if constexpr (PACKS) {
        // Rows are pages apart, where no processor prefetches by itself.
        __builtin_prefetch(source + 16 * matrix.source_row + v * kVec);
        b[v] = load(source + v * kVec);
        store(panel + v * kVec, b[v]);
      } else {
        b[v] = load(panel + v * kVec);
      }
    }
    if constexpr (PACKS) source += matrix.source_row;
    if constexpr (HALF) b_last = *reinterpret_cast<const LooseHalf*>(panel + kWhole * kVec);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const T s = *in.row(i);
#pragma GCC unroll 4
      for (int v = 0; v < kWhole; ++v) acc[i][v] += s * b[v];
      if constexpr (HALF) last[i] += s * b_last;
    }
    in.advance(a_col);
  }
  if (!HALF && columns != VECTORS * kVec) {
    T sums[ROWS * VECTORS * kVec];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) store(sums + (i * VECTORS + v) * kVec, acc[i][v]);
    finish_partial(ROWS, columns, sums, VECTORS * kVec, c, c_row, e);
    return;
  }
  const RowPointers<T, ROWS> out(c, c_row);
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kWhole; ++v) {
      Vec<T> value = acc[i][v];
      if constexpr (!PLAIN) {
        if (e.row_bias != nullptr) value += e.row_bias[i];
        if (e.column_bias != nullptr) value += load(e.column_bias + v * kVec);
        if (e.addend != nullptr) value += load(e.addend + i * c_row + v * kVec);
        value = activate<T>(value, e.activation);
      }
      store(out.row(i) + v * kVec, value);
    }
  }
  if constexpr (HALF) {
    constexpr int kHalf = kVec / 2, kBefore = kWhole * kVec;
    T sums[(ROWS + 1) * kHalf];  // its last row is read as a whole vector
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) *reinterpret_cast<LooseHalf*>(sums + i * kHalf) = last[i];
    *reinterpret_cast<LooseHalf*>(sums + ROWS * kHalf) = Half{};
    Epilogue<T> rest = e;
    if (rest.addend != nullptr) rest.addend += kBefore;
    if (rest.column_bias != nullptr) rest.column_bias += kBefore;
    finish_partial(ROWS, columns - kBefore, sums, kHalf, c + kBefore, c_row, rest);
  }
}

template <class T>
using Micro = void (*)(int64_t, const MatrixA<T>&, const MatrixB<T>&, T*, int64_t, int64_t,
                       const Epilogue<T>&);

// The micro-kernels of 1 to kRows rows.
template <class T>
struct Micros {
  Micro<T> of[kRows + 1];
};

template <class T, int VECTORS, bool PLAIN, bool PACKS, bool HALF, int... ROWS>
constexpr Micros<T> micros(std::integer_sequence<int, ROWS...>) {
  return {{nullptr, micro<T, ROWS + 1, VECTORS, PLAIN, PACKS, HALF>...}};
}

template <class T, int VECTORS, bool PLAIN, bool PACKS = false, bool HALF = false>
inline constexpr Micros<T> kMicros =
    micros<T, VECTORS, PLAIN, PACKS, HALF>(std::make_integer_sequence<int, kRows>());

template <class T>
const Micros<T>& micros_for(int64_t width, bool plain) {
  if constexpr (kHalves<T>) {
    constexpr int64_t kHalf = kLanes<T> / 2;
    if (width <= kHalf) return kMicros<T, 1, false, false, true>;
    if (width > kLanes<T> && width <= kLanes<T> + kHalf)
      return plain ? kMicros<T, 2, true, false, true> : kMicros<T, 2, false, false, true>;
  }
  if (width <= kLanes<T>) return plain ? kMicros<T, 1, true> : kMicros<T, 1, false>;
  return plain ? kMicros<T, 2, true> : kMicros<T, 2, false>;
}

// Contiguous memory that is going to be read next, to be asked for in between, a little at a time,
// so that it comes while there is something to compute.
class Ahead {
 public:
  Ahead() = default;
  // Nothing where it is so much that it would drive out of the second cache what is in use.
  template <class T>
  Ahead(const T* p, int64_t count) : next_(reinterpret_cast<const char*>(p)) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (bytes <= tuning::kAheadBytes) lines_ = ceil_div(bytes, 64);
  }
  // As often as `ask` is going to be called.
  void share_out(int64_t calls) { each_ = ceil_div(lines_, max_of(1, calls)); }
  void ask() {
    for (const int64_t left = max_of(0, lines_ - each_); lines_ > left; --lines_, next_ += 64)
      __builtin_prefetch(next_, 0, 2);
  }

 private:
  const char* next_ = nullptr;
  int64_t lines_ = 0, each_ = 0;
};

// All rows of A by `columns` columns of B; `c` is element (0, 0). PACKED: A is as `pack_rows` has
// it.
template <bool PACKED = false, class T>
void multiply(int64_t rows, int64_t columns, int64_t depth, const MatrixA<T>& a,
              const MatrixB<T>& b, T* c, int64_t c_row, const Epilogue<T>& epilogue,
              Ahead ahead = {}) {
  if (rows == 0) return;
  // Rows that lie multiples of 4 KiB apart are on one set of the first cache, of eight lines: more
  // would drive each other out at every step.
  const bool one_set = a.row * static_cast<int64_t>(sizeof(T)) % 4096 == 0;
  const RowGroups groups(rows, !PACKED && one_set ? min_of(8, kRows) : kRows);
  ahead.share_out(groups.count * panels<T>(columns));
  const bool late = is_late(epilogue.activation), plain = epilogue.plain();
  for (int64_t n = 0; n < columns; n += kPanel<T>) {
    const int64_t width = min_of(kPanel<T>, columns - n);
    MatrixB<T> panel{b.once ? b.panels : b.panels + n * depth};
    const Micros<T>* table = &micros_for<T>(width, plain);
    if (b.source != nullptr && width == kPanel<T>) {
      panel.source = b.source + n;
      panel.source_row = b.source_row;
      table = &kMicros<T, 2, false, true>;
    } else if (b.source != nullptr) {
      pack(depth, width, b.source + n, b.source_row, int64_t{1}, panel.panels);
    }
    int64_t m = 0;
    for (int64_t group = 0; group < groups.count; ++group) {
      const int64_t count = groups.rows(group);
      const MatrixA<T> here = PACKED ? MatrixA<T>{a.data + m * depth, 1, count} : a.at(m, 0);
      Epilogue<T> e = epilogue;
      e.activation = early(epilogue.activation);
      if (e.addend != nullptr) e.addend += m * c_row + n;
      if (e.column_bias != nullptr) e.column_bias += n;
      if (e.row_bias != nullptr) e.row_bias += m;
      T* tile = c + m * c_row + n;
      ahead.ask();
      table->of[count](depth, here, panel, tile, c_row, width, e);
      table = &micros_for<T>(width, plain);
      if (late)
        for (int64_t i = 0; i < count; ++i)
          activate_late(tile + i * c_row, width, epilogue.activation);
      m += count;
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
