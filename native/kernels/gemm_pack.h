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

// B as packed panels, or as the source that the panels are filled from during the product, which
// may be of a half type: element (k, n) of B is source[k * source_row + n]. `once`: there is memory
// for one panel, which each fills in turn.
template <class T, class Source = T>
struct MatrixB {
  T* panels = nullptr;
  const Source* source = nullptr;
  int64_t source_row = 0;
  bool once = false;
};

// B with filled panels, which are only read.
template <class T, class Source = T>
MatrixB<T, Source> filled(const T* panels) {
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

// Whether T is packed in pairs of k that are as large as a float32, as they are.
template <class S, class T>
inline constexpr bool kPairs = kSame<S, T> && sizeof(T) == 2 && ProductOf<T>::kSteps == 2;

// Puts the elements of two rows beside each other; without a second row, zeros. Whole vectors are
// written, filled up with zeros.
template <class T>
inline void interleave(const T* first, const T* second, int64_t count, T* to) {
  constexpr int64_t kVec = kLanes<float>;
  for (int64_t i = 0; i < count; i += kVec) {
    const auto words = [&](const T* from) {
      return __builtin_convertvector(count - i >= kVec
                                         ? *reinterpret_cast<const LooseHalves*>(from + i)
                                         : load_halves(from + i, count - i),
                                     Words);
    };
    Words pairs = words(first);
    if (second != nullptr) pairs |= words(second) << 16;
    __builtin_memcpy(to + 2 * i, &pairs, sizeof pairs);
  }
}

// Transposes 4 x 4 items of 4 bytes, of one element or of two: item (n, k) is at from[n * step] and
// goes to row k of `to`, rows `row` elements apart. Vectors have 16 bytes at every level, since
// wider ones need more instructions.
template <class T>
inline void transpose_items(const T* from, int64_t step, T* to, int64_t row) {
  // Clang takes no alignment that depends on T here.
  static_assert(alignof(T) >= 2);
  typedef float Four __attribute__((vector_size(16), aligned(2), may_alias));
  [[maybe_unused]] typedef int Order __attribute__((vector_size(16)));
  const auto get = [&](int n) { return *reinterpret_cast<const Four*>(from + n * step); };
  const Four a = get(0), b = get(1), c = get(2), d = get(3);
#if defined(__clang__)
#define SEPCONV_SHUFFLE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
#define SEPCONV_SHUFFLE(x, y, i, j, k, l) __builtin_shuffle(x, y, Order{i, j, k, l})
#endif
  const Four ab_low = SEPCONV_SHUFFLE(a, b, 0, 4, 1, 5),
             ab_high = SEPCONV_SHUFFLE(a, b, 2, 6, 3, 7);
  const Four cd_low = SEPCONV_SHUFFLE(c, d, 0, 4, 1, 5),
             cd_high = SEPCONV_SHUFFLE(c, d, 2, 6, 3, 7);
  const auto put = [&](int k, Four v) { *reinterpret_cast<Four*>(to + k * row) = v; };
  put(0, SEPCONV_SHUFFLE(ab_low, cd_low, 0, 1, 4, 5));
  put(1, SEPCONV_SHUFFLE(ab_low, cd_low, 2, 3, 6, 7));
  put(2, SEPCONV_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5));
  put(3, SEPCONV_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7));
#undef SEPCONV_SHUFFLE
}

inline void transpose_items(const double* from, int64_t step, double* to, int64_t row) {
  for (int64_t n = 0; n < 4; ++n)
    for (int64_t k = 0; k < 4; ++k) to[k * row + n] = from[n * step + k];
}

// Packs a panel of `width` columns of B where B is transposed: its columns are contiguous, `col`
// apart. Of pairs, all but a last single step.
template <class S, class T>
void pack_transposed(int64_t depth, int64_t width, const S* from, int64_t col, T* panel) {
  constexpr int kWidth = kPanel<T>, kSteps = ProductOf<T>::kSteps;
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  constexpr int64_t kAhead = tuning::kTransposeAheadLines * 64 / static_cast<int64_t>(sizeof(S));
  static_assert(kSteps == 1 || kPairs<S, T>);
  [[maybe_unused]] T converted[4 * kLine];
  const int64_t whole = depth / kSteps * kSteps;
  // One cache line of every column at a time, so that the lines of the panel stay in the first
  // cache.
  for (int64_t k0 = 0; k0 < whole; k0 += kLine) {
    const int64_t count = min_of(kLine, whole - k0);
    int64_t n = 0;
    for (; n + 4 <= width; n += 4) {
      // Columns are pages apart and too many for a processor to follow.
      for (int64_t i = n; i < n + 4; ++i) __builtin_prefetch(from + i * col + k0 + kAhead, 0, 2);
      // Four columns from k0 on, as T.
      const T* columns;
      int64_t step;
      if constexpr (kSame<S, T>) {
        columns = from + k0 + n * col;
        step = col;
      } else {
        columns = converted;
        step = kLine;
        for (int64_t i = 0; i < 4; ++i)
          convert_run(from + k0 + (n + i) * col, count, converted + i * kLine);
      }
      T* const to = panel + k0 * kWidth + n * kSteps;
      int64_t k = 0;
      for (; k + 4 * kSteps <= count; k += 4 * kSteps)
        transpose_items(columns + k, step, to + k * kWidth, kWidth * kSteps);
      for (; k < count; k += kSteps)
        for (int64_t i = 0; i < 4; ++i)
          for (int64_t s = 0; s < kSteps; ++s)
            to[k * kWidth + i * kSteps + s] = columns[k + s + i * step];
    }
    for (; n < width; ++n)
      for (int64_t k = k0; k < k0 + count; k += kSteps)
        for (int64_t s = 0; s < kSteps; ++s)
          panel[k * kWidth + n * kSteps + s] = converted_to<T>(from[k + s + n * col]);
  }
}

// Packs B, whose element (k, n) is b[k * row + n * col], as it is or converted to float32. Blocks
// of B's rows go through all panels in turn, so that B is read along its rows.
template <class S, class T>
void pack(int64_t depth, int64_t columns, const S* b, int64_t row, int64_t col, T* packed) {
  using P = ProductOf<T>;
  constexpr int64_t kWidth = P::kColumns, kSteps = P::kSteps, kBlock = tuning::kPackRows;
  const int64_t whole = columns / kWidth * kWidth, panel_size = panel_elements<T>(depth);
  if (whole < columns) fill_zero(packed + panels<T>(whole) * panel_size, panel_size);
  if constexpr (kSteps > 1) {
    if (depth % kSteps != 0)
      for (int64_t panel = 1; panel <= panels<T>(columns); ++panel)
        fill_zero(packed + panel * panel_size - kWidth * kSteps, kWidth * kSteps);
  }
  if constexpr (kSteps == 1 || kPairs<S, T>) {
    if (row == 1 && col != 1) {
      for (int64_t n0 = 0; n0 < columns; n0 += kWidth) {
        const int64_t width = min_of(kWidth, columns - n0);
        T* const panel = packed + panel_start<T>(depth, n0);
        pack_transposed(depth, width, b + n0 * col, col, panel);
        if (depth % kSteps == 0) continue;
        for (int64_t n = 0; n < width; ++n)  // the last step is alone
          panel[(depth - 1) * kWidth + n * kSteps] = converted_to<T>(b[depth - 1 + (n0 + n) * col]);
      }
      return;
    }
  }
  for (int64_t k0 = 0; k0 < depth; k0 += kBlock) {
    const int64_t k1 = min_of(k0 + kBlock, depth);
    for (int64_t n0 = 0; n0 < columns; n0 += kWidth) {
      T* panel = packed + panel_start<T>(depth, n0);
      const S* from = b + n0 * col;
      const int64_t width = min_of(kWidth, columns - n0);
      if constexpr (kSteps == 1) {
        if (col == 1 && width == kWidth) {
          for (int64_t k = k0; k < k1; ++k)
#pragma GCC unroll 4
            for (int v = 0; v < P::kVectors; ++v)
              store(panel + k * kWidth + v * kLanes<T>, load_real(from + k * row + v * kLanes<T>));
          continue;
        }
      }
      if constexpr (kPairs<S, T>) {
        if (col == 1) {
          for (int64_t k = k0; k < k1; k += 2)
            interleave(from + k * row, k + 1 < depth ? from + (k + 1) * row : nullptr, width,
                       panel + k * kWidth);
          continue;
        }
      }
      for (int64_t k = k0; k < k1; ++k) {
        T* to = panel + k / kSteps * kWidth * kSteps + k % kSteps;
        if constexpr (kSteps == 1 && !kSame<S, T>) {
          if (col == 1) {
            convert_run(from + k * row, width, to);
            continue;
          }
        }
        for (int64_t n = 0; n < width; ++n)
          to[n * kSteps] = converted_to<T>(from[k * row + n * col]);
      }
    }
  }
}

// Packs A's rows, as they are or converted to float32, part after part: [part][k / kSteps][row]
// [kSteps], the last k filled up with zeros. Where they are read again and again, they then come
// one after the other, not a row of memory apart. Where a row of a panel holds one step, A's rows
// have to lie beside each other (a.row is 1), and whole vectors are written, of which the next row
// writes over what is too much. Otherwise A may have any strides.
template <class S, class T>
void pack_rows(int64_t rows, int64_t depth, const MatrixA<S>& a, T* packed) {
  using P = ProductOf<T>;
  constexpr int64_t kSteps = P::kSteps;
  const RowParts parts(rows, P::kRows);
  int64_t m = 0;
  for (int64_t part = 0; part < parts.count; ++part) {
    const int64_t count = parts.rows(part);
    const S* from = a.data + m * a.row;
    if constexpr (kSteps == 1) {
      for (int64_t k = 0; k < depth; ++k, from += a.col, packed += count)
        for (int64_t i = 0; i < count; i += kLanes<T>)
          store(packed + i, load_real_first(from + i, min_of(kLanes<T>, count - i)));
    } else if (kPairs<S, T> && a.row == 1) {
      if constexpr (kPairs<S, T>)
        for (int64_t k = 0; k < depth; k += 2, packed += 2 * count)
          interleave(from + k * a.col, k + 1 < depth ? from + (k + 1) * a.col : nullptr, count,
                     packed);
    } else {
      for (int64_t k = 0; k < depth; k += kSteps)
        for (int64_t i = 0; i < count; ++i)
          for (int64_t step = k; step < k + kSteps; ++step)
            *packed++ = step < depth ? converted_to<T>(from[i * a.row + step * a.col]) : T{};
    }
    m += count;
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
