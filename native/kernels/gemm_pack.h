// The operands of a matrix product, and how they are packed.
//
// B is packed into panels of kColumns columns, [ceil(n / kColumns)][k / kSteps][kColumns][kSteps],
// where columns and k are filled up with zeros. A is read in place as a rule, kRows rows at a time;
// pack_rows() is for where its steps of k do not lie as a micro-kernel reads them, and for where
// its rows lie so that a cache would hold few of them.
#pragma once
#include "gemm_policy.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Element (m, k) is data[m * row + k * col], with any strides where a row of a panel holds one
// step of k. Where it holds several, they are read at once: `col` is then 1 in a product, and
// whatever else it may be, pack_rows() takes.
template <class T>
struct MatrixA {
  const T* data;
  int64_t row, col;  // strides
  MatrixA at(int64_t m, int64_t k) const { return {data + m * row + k * col, row, col}; }
};

// B as packed panels, or as the source that the panels are filled from during the product: element
// (k, n) of B is source[k * source_row + n]. `once`: there is memory for one panel, which each
// fills in turn.
template <class T>
struct MatrixB {
  T* panels;
  const T* source = nullptr;
  int64_t source_row = 0;
  bool once = false;
  // What is asked for ahead of its use: a line at each step of k, `next_step` elements apart.
  const T* next = nullptr;
  int64_t next_step = 0;
};

// B with filled panels, which are only read.
template <class T>
MatrixB<T> filled(const T* panels) {
  return {const_cast<T*>(panels)};
}

// Rows divided evenly among micro-kernels: 14 as 5 + 5 + 4, not 6 + 6 + 2.
struct RowParts {
  int64_t count, each, more;
  explicit RowParts(int64_t rows, int64_t most)
      : count(ceil_div(rows, most)), each(rows / max_of(1, count)), more(rows - each * count) {}
  int64_t rows(int64_t part) const { return each + (part < more); }
};

template <class T>
inline int64_t panels(int64_t columns) {
  return ceil_div(columns, kPanel<T>);
}

// Elements of a panel.
template <class T>
inline int64_t panel_elements(int64_t depth) {
  return round_up(depth, ProductOf<T>::kSteps) * kPanel<T>;
}

// Where the panel that begins with a column, a multiple of kPanel, is in packed B.
template <class T>
inline int64_t panel_start(int64_t depth, int64_t column) {
  return column * round_up(depth, ProductOf<T>::kSteps);
}

template <class T>
inline int64_t packed_elements(int64_t depth, int64_t columns) {
  return panels<T>(columns) * panel_elements<T>(depth);
}

// Elements that pack_rows() needs room for: a vector more than it leaves.
template <class T>
inline int64_t packed_rows_elements(int64_t rows, int64_t depth) {
  return round_up(rows * round_up(depth, ProductOf<T>::kSteps) + kLanes<T>, kLanes<T>);
}

// Transposes 4 x 4 elements: from[n * step + k] to to[k * WIDTH + n]. Vectors have 16 bytes at
// every level, since wider ones need more instructions.
template <int WIDTH>
inline void transpose_4x4(const float* from, int64_t step, float* to) {
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
  const auto put = [&](int k, Four v) { *reinterpret_cast<Four*>(to + k * WIDTH) = v; };
  put(0, SEPCONV_SHUFFLE(ab_low, cd_low, 0, 1, 4, 5));
  put(1, SEPCONV_SHUFFLE(ab_low, cd_low, 2, 3, 6, 7));
  put(2, SEPCONV_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5));
  put(3, SEPCONV_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7));
#undef SEPCONV_SHUFFLE
}

template <int WIDTH, class T>
inline void transpose_4x4(const T* from, int64_t step, T* to) {
  for (int64_t n = 0; n < 4; ++n)
    for (int64_t k = 0; k < 4; ++k) to[k * WIDTH + n] = from[n * step + k];
}

// Packs a panel of `width` columns of B where B is transposed: its columns are contiguous, `col`
// apart.
template <class T>
void pack_transposed(int64_t depth, int64_t width, const T* from, int64_t col, T* panel) {
  constexpr int kWidth = kPanel<T>;
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  // One cache line of every column at a time, so that the lines of the panel stay in the first
  // cache.
  for (int64_t k0 = 0; k0 < depth; k0 += kLine) {
    const int64_t k1 = min_of(k0 + kLine, depth);
    int64_t n = 0;
    for (; n + 4 <= width; n += 4) {
      // Columns are pages apart and too many for a processor to follow.
      for (int64_t i = n; i < n + 4; ++i)
        __builtin_prefetch(from + i * col + k0 + tuning::kTransposeAheadLines * kLine, 0, 2);
      int64_t k = k0;
      for (; k + 4 <= k1; k += 4)
        transpose_4x4<kWidth>(from + k + n * col, col, panel + k * kWidth + n);
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
  using P = ProductOf<T>;
  constexpr int64_t kWidth = P::kColumns, kSteps = P::kSteps, kBlock = tuning::kPackRows;
  const int64_t whole = columns / kWidth * kWidth, panel_size = panel_elements<T>(depth);
  if (whole < columns) fill_zero(packed + panels<T>(whole) * panel_size, panel_size);
  if constexpr (kSteps == 1) {
    if (row == 1 && col != 1) {
      for (int64_t n = 0; n < columns; n += kWidth)
        pack_transposed(depth, min_of(kWidth, columns - n), b + n * col, col, packed + n * depth);
      return;
    }
  } else if (depth % kSteps != 0) {
    for (int64_t panel = 1; panel <= panels<T>(columns); ++panel)
      fill_zero(packed + panel * panel_size - kWidth * kSteps, kWidth * kSteps);
  }
  for (int64_t k0 = 0; k0 < depth; k0 += kBlock) {
    const int64_t k1 = min_of(k0 + kBlock, depth);
    for (int64_t n0 = 0; n0 < columns; n0 += kWidth) {
      T* panel = packed + panel_start<T>(depth, n0);
      const T* from = b + n0 * col;
      const int64_t width = min_of(kWidth, columns - n0);
      if (kSteps == 1 && col == 1 && width == kWidth) {
        for (int64_t k = k0; k < k1; ++k)
#pragma GCC unroll 4
          for (int v = 0; v < P::kVectors; ++v)
            store(panel + k * kWidth + v * kLanes<T>, load(from + k * row + v * kLanes<T>));
      } else {
        for (int64_t k = k0; k < k1; ++k) {
          T* to = panel + k / kSteps * kWidth * kSteps + k % kSteps;
          for (int64_t n = 0; n < width; ++n) to[n * kSteps] = from[k * row + n * col];
        }
      }
    }
  }
}

// Packs A's rows, part after part: [part][k / kSteps][row][kSteps], the last k filled up
// with zeros. Where they are read again and again, they then come one after the other, not a row of
// memory apart. Where a row of a panel holds one step, A's rows have to lie beside each other
// (a.row is 1), and whole vectors are written, of which the next row writes over what is too much.
// Otherwise A may have any strides.
template <class T>
void pack_rows(int64_t rows, int64_t depth, const MatrixA<T>& a, T* packed) {
  using P = ProductOf<T>;
  constexpr int64_t kSteps = P::kSteps;
  const RowParts parts(rows, P::kRows);
  int64_t m = 0;
  for (int64_t part = 0; part < parts.count; ++part) {
    const int64_t count = parts.rows(part);
    const T* from = a.data + m * a.row;
    if constexpr (kSteps == 1) {
      for (int64_t k = 0; k < depth; ++k, from += a.col, packed += count)
        for (int64_t i = 0; i < count; i += kLanes<T>)
          store(packed + i, load_first(from + i, min_of(kLanes<T>, count - i)));
    } else {
      for (int64_t k = 0; k < depth; k += kSteps)
        for (int64_t i = 0; i < count; ++i)
          for (int64_t step = k; step < k + kSteps; ++step)
            *packed++ = step < depth ? from[i * a.row + step * a.col] : T(0);
    }
    m += count;
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
