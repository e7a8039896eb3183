// Channelwise correlation with kernels of 3 x 3, 5 x 5, 1 x 3 and 3 x 1 taps, by register tiles:
// the sums of neighbouring outputs, two rows by seven columns where there are 32 registers, are
// held in registers for one vector of channels after the other.
//
// The weights of that vector are in registers too, of 5 x 5 taps those that a row of inputs needs,
// and an input vector, once loaded, serves every output of the tile that sees it. At the image's
// edge the inputs outside are skipped. With dilation, a tile has every dilation-th output.
//
// Images are of S and computed with in Real<S>; results are of Out, rounded to S.
#pragma once
#include "../tuning.h"
#include "activation.h"
#include "half.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

inline constexpr int kSmallRows = kRegisters == 32 ? 2 : 1;
inline constexpr int kSmallColumns = kRegisters == 32 ? 7 : 4;

// The columns of inputs at either side of a tile that may be outside the image, of those that it
// sees. The widest tiles, whose every check costs, make do with what padding to the same size
// needs.
constexpr int64_t padded_columns(int64_t kw) { return kw / 2; }
template <int KW, int STRIDE, int COLUMNS>
inline constexpr int kEdge =
    COLUMNS == kSmallColumns ? int{padded_columns(KW)} : (COLUMNS - 1) * STRIDE + KW;

// Rows and columns are counted in the input pixels that the tile's taps see: those in [row_first,
// row_last) x [column_first, column_last) are inside the image.
template <class S, class Out>
struct SmallTile {
  const S* in;                // input (0, 0), which may be outside
  int64_t in_row, in_column;  // elements from one input of the tile to the next
  int64_t row_first, row_last, column_first, column_last;
  const Real<S>* weights;
  int64_t weights_tap;
  const Real<S>* bias;    // may be null
  Activation activation;  // a late one of half types only
  Out* out;
  int64_t out_row, out_column;
  int64_t channels;
};

// INSIDE: all inputs that the tile sees are inside the image.
template <class S, class Out, int KH, int KW, int STRIDE, int ROWS, int COLUMNS, bool INSIDE>
[[gnu::always_inline]] inline void sum_tile(const SmallTile<S, Out>& a) {
  using T = Real<S>;
  constexpr int kVec = kLanes<T>;
  // The weights in registers: all of them, or a row of taps for each row of outputs.
  constexpr bool kAll = KH * KW <= 9;
  constexpr int kSeen = (COLUMNS - 1) * STRIDE + KW, kChecked = kEdge<KW, STRIDE, COLUMNS>;
  for (int64_t begin = 0; begin < a.channels; begin += kVec) {
    // The last vector of channels overlaps the one before it.
    const int64_t c = min_of(begin, a.channels - kVec);
    Vec<T> w[kAll ? KH : ROWS][KW];
    const auto load_taps = [&](Vec<T>(&to)[KW], int i) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int j = 0; j < KW; ++j) to[j] = load(a.weights + (i * KW + j) * a.weights_tap + c);
    };
    if constexpr (kAll) {
#pragma GCC unroll 4
      for (int i = 0; i < KH; ++i) load_taps(w[i], i);
    }
    const Vec<T> start = a.bias == nullptr ? zero<T>() : load(a.bias + c);
    Vec<T> acc[ROWS][COLUMNS];
#pragma GCC unroll 4
    for (int p = 0; p < ROWS; ++p)
#pragma GCC unroll 8
      for (int q = 0; q < COLUMNS; ++q) acc[p][q] = start;
    const S* row = a.in + c;
#pragma GCC unroll 8
    for (int r = 0; r < (ROWS - 1) * STRIDE + KH; ++r, row += a.in_row) {
      if (!INSIDE && (r < a.row_first || r >= a.row_last)) continue;
      if constexpr (!kAll) {
#pragma GCC unroll 4
        for (int p = 0; p < ROWS; ++p)
          if (const int i = r - p * STRIDE; i >= 0 && i < KH) load_taps(w[p], i);
      }
      const S* from = row;
#pragma GCC unroll 32
      for (int t = 0; t < kSeen; ++t, from += a.in_column) {
        if (!INSIDE && t < kChecked && t < a.column_first) continue;
        if (!INSIDE && t >= kSeen - kChecked && t >= a.column_last) continue;
        const Vec<T> v = load_real(from);
#pragma GCC unroll 4
        for (int p = 0; p < ROWS; ++p) {
          const int i = r - p * STRIDE;
          if (i < 0 || i >= KH) continue;
#pragma GCC unroll 8
          for (int q = 0; q < COLUMNS; ++q) {
            const int j = t - q * STRIDE;
            if (j >= 0 && j < KW) acc[p][q] += v * w[kAll ? i : p][j];
          }
        }
      }
    }
    if constexpr (kIsHalf<S>) {
      if (is_late(a.activation)) {
        T sums[ROWS * COLUMNS * kVec];
#pragma GCC unroll 4
        for (int p = 0; p < ROWS; ++p)
#pragma GCC unroll 8
          for (int q = 0; q < COLUMNS; ++q) store(sums + (p * COLUMNS + q) * kVec, acc[p][q]);
        activate_late(sums, 1, 0, ROWS * COLUMNS * kVec, a.activation);
#pragma GCC unroll 4
        for (int p = 0; p < ROWS; ++p)
#pragma GCC unroll 8
          for (int q = 0; q < COLUMNS; ++q)
            store_rounded<S>(a.out + p * a.out_row + q * a.out_column + c,
                             load(sums + (p * COLUMNS + q) * kVec));
        continue;
      }
    }
    const auto each = [&](auto&& f) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int p = 0; p < ROWS; ++p)
#pragma GCC unroll 8
        for (int q = 0; q < COLUMNS; ++q) f(acc[p][q], p, q);
    };
    activate_each<T>(a.activation, each);
    each([&](const Vec<T>& sum, int p, int q) {
      store_sum<S>(a.out + p * a.out_row + q * a.out_column + c, sum);
    });
  }
}

// With 16 registers a tile is so small that the checks of its edges take as long as a third of its
// sums: most tiles go without.
template <class S, class Out, int KH, int KW, int STRIDE, int ROWS, int COLUMNS>
void small_tile(const SmallTile<S, Out>& given) {
  // A copy, which no result that is stored can be part of.
  const SmallTile<S, Out> a = given;
  if constexpr (kRegisters == 16)
    if (a.row_first == 0 && a.row_last >= (ROWS - 1) * STRIDE + KH && a.column_first == 0 &&
        a.column_last >= (COLUMNS - 1) * STRIDE + KW)
      return sum_tile<S, Out, KH, KW, STRIDE, ROWS, COLUMNS, true>(a);
  sum_tile<S, Out, KH, KW, STRIDE, ROWS, COLUMNS, false>(a);
}

// The sizes of tiles: 1, 3 and kSmallColumns columns.
inline constexpr int64_t kTileColumns[3] = {1, 3, kSmallColumns};

// A tile of outputs along a row: its size, the first output, and the columns of inputs that it
// sees, with those of them inside the image.
struct TileColumns {
  int size;
  int64_t q, left;
  Range inside;

  TileColumns(const Correlation& g, int64_t q, int size)
      : size(size),
        q(q),
        left(q * g.sw - g.pl),
        inside(taps_inside(left, (kTileColumns[size] - 1) * g.sw + g.kw, g.dw, g.in_w)) {}
};

// The tile of the largest size that `count` outputs fill and whose columns outside the image it
// checks; `first(size)` is the first output.
template <class First>
TileColumns tile_columns(const Correlation& g, int64_t count, const First& first) {
  const int size = count >= kSmallColumns ? 2 : count >= 3 ? 1 : 0;
  const TileColumns tile(g, first(size), size);
  const int64_t edge = padded_columns(g.kw);
  const bool checks =
      tile.inside.first <= edge && tile.inside.last >= (kSmallColumns - 1) * g.sw + g.kw - edge;
  return size == 2 && !checks ? TileColumns(g, first(1), 1) : tile;
}

// The functions of one kernel size and stride, by the size of the tile.
template <class S, class Out>
struct SmallFunctions {
  using Function = void (*)(const SmallTile<S, Out>&);
  Function by_rows[2][3];  // one row and kSmallRows; kTileColumns
};

template <class S, class Out, int KH, int KW, int STRIDE>
const SmallFunctions<S, Out>& small_functions() {
  constexpr int kMost = KH == 1 ? 1 : kSmallRows;  // one row of taps shares nothing
  static constexpr SmallFunctions<S, Out> functions{
      {{small_tile<S, Out, KH, KW, STRIDE, 1, 1>, small_tile<S, Out, KH, KW, STRIDE, 1, 3>,
        small_tile<S, Out, KH, KW, STRIDE, 1, kSmallColumns>},
       {small_tile<S, Out, KH, KW, STRIDE, kMost, 1>, small_tile<S, Out, KH, KW, STRIDE, kMost, 3>,
        small_tile<S, Out, KH, KW, STRIDE, kMost, kSmallColumns>}}};
  return functions;
}

// Null where there are no such functions for a kernel.
template <class S, class Out = S>
const SmallFunctions<S, Out>* pick_small(const Correlation& g) {
  // With 16 registers a tile of 5 x 5 taps holds too few outputs to be quicker than others.
  constexpr bool kLarger = kRegisters == 32;
  if constexpr (sizeof(Real<S>) == 4) {  // float64 is spared the compilation
    if (g.sh == 2 && g.sw == 2) {
      if (g.dh != 1 || g.dw != 1) return nullptr;
      if (g.kh == 3 && g.kw == 3) return &small_functions<S, Out, 3, 3, 2>();
      if constexpr (kLarger)
        if (g.kh == 5 && g.kw == 5) return &small_functions<S, Out, 5, 5, 2>();
      return nullptr;
    }
    if (g.sh != 1 || g.sw != 1) return nullptr;
    if (g.kh == 3 && g.kw == 3) return &small_functions<S, Out, 3, 3, 1>();
    if constexpr (kLarger) {
      if (g.kh == 5 && g.kw == 5) return &small_functions<S, Out, 5, 5, 1>();
      // These are phases of the input gradient of 5 x 5 taps at stride 2.
      if (g.kh == 3 && g.kw == 2) return &small_functions<S, Out, 3, 2, 1>();
      if (g.kh == 2 && g.kw == 3) return &small_functions<S, Out, 2, 3, 1>();
      if (g.kh == 2 && g.kw == 2) return &small_functions<S, Out, 2, 2, 1>();
    }
    if (g.kh == 1 && g.kw == 3) return &small_functions<S, Out, 1, 3, 1>();
    if (g.kh == 3 && g.kw == 1) return &small_functions<S, Out, 3, 1, 1>();
  }
  return nullptr;
}

// The number of channels that go through a band together: so many that the input rows between an
// input's first use and its last stay in the second cache. All of them where the kernel has one
// row.
template <class S>
int64_t small_channels(const Correlation& g) {
  if (g.kh == 1) return g.channels;
  const int64_t rows = g.kh - 1 + kSmallRows * g.sh, columns = ceil_div(g.in_w, g.dw);
  const int64_t elements = tuning::kSmallBandBytes / static_cast<int64_t>(sizeof(S));
  constexpr int64_t kVec = kLanes<Real<S>>, kLeast = 8 * kVec;
  return max_of(kLeast, elements / max_of(1, rows * columns) / kVec * kVec);
}

// Where pixels lie a multiple of 2 KiB apart, those that a tile sees share two sets of the first
// cache, and drive each other out before they are used. Tiles then see a copy of the window, some
// channels at a time, whose pixels lie an odd number of cache lines apart. At stride 2 they use
// each pixel half as often, and a copy pays from 4 KiB on.
template <class S>
bool wants_copy(const Correlation& g) {
  return g.kh > 1 && g.channels * static_cast<int64_t>(sizeof(S)) % (2048 * g.sh) == 0;
}

// The most pixels inside the image that a window of this size or a smaller one has.
inline int64_t most_pixels(const Correlation& g, const Window& w) {
  return min_of(w.rows, g.in_h) * min_of(w.columns, g.in_w);
}

// The number of channels of a window that are copied at a time: 4 to 16 vectors, about kCopyBytes
// of all pixels.
inline constexpr int64_t kLeastCopied = 4;
template <class S>
int64_t copied_channels(const Correlation& g, const Window& w) {
  constexpr int64_t kVec = kLanes<Real<S>>, kBytes = kVec * static_cast<int64_t>(sizeof(S));
  const int64_t vectors = tuning::kCopyBytes / kBytes / max_of(1, most_pixels(g, w));
  return min_of(max_of(vectors, kLeastCopied), 16) * kVec;
}

// Elements of the copy of this window or a smaller one.
template <class S>
int64_t copied_elements(const Correlation& g, const Window& w) {
  constexpr int64_t kVec = kLanes<Real<S>>;
  constexpr int64_t kRoom = tuning::kCopyBytes / static_cast<int64_t>(sizeof(S));
  const int64_t pixels = most_pixels(g, w);
  return max_of(kRoom, pixels * kLeastCopied * kVec) + pixels * kVec;
}

// Copies the window's pixels inside the image: `channels` channels (whole vectors) of each, from
// the one that `image` points to.
template <class S>
Pixels<S> copy_pixels(const Correlation& g, const S* image, int64_t channels, const Window& w,
                      S* copy) {
  constexpr int64_t kVec = kLanes<Real<S>>;
  const int64_t pitch = (channels / kVec | 1) * kVec;
  const int64_t row = max_of(0, w.row), column = max_of(0, w.column);
  const int64_t rows = min_of(w.row + w.rows, g.in_h) - row;
  const int64_t columns = max_of(0, min_of(w.column + w.columns, g.in_w) - column);
  S* to = copy;
  for (int64_t r = 0; r < rows; ++r) {
    const S* from = image + ((row + r) * g.in_w + column) * g.channels;
    for (int64_t q = 0; q < columns; ++q, from += g.channels, to += pitch)
      for (int64_t c = 0; c < channels; c += kVec)
        __builtin_memcpy(to + c, from + c, kVec * sizeof(S));
  }
  return {copy, row, column, columns * pitch, pitch};
}

// Calls f(c, count, pixels) for the channels [c0, c1) of a small kernel's image, as many at a time
// as suit the caches; `pixels` is a copy in `strip`, or the image where `strip` is null.
template <class S, class F>
void each_channel_part(const Correlation& g, const S* image, const Window& w, int64_t c0,
                       int64_t c1, S* strip, F&& f) {
  const int64_t most = strip == nullptr ? small_channels<S>(g) : copied_channels<S>(g, w);
  const int64_t parts = ceil_div(c1 - c0, most);
  for (int64_t part = 0; part < parts; ++part) {
    const Range range = channel_part<Real<S>>(c1 - c0, parts, part);
    const int64_t c = c0 + range.first, count = range.last - range.first;
    f(c, count,
      strip == nullptr ? image_pixels(g, image, c) : copy_pixels(g, image + c, count, w, strip));
  }
}

// Computes a box of outputs; `pixels`, `weights`, `bias` and `out` point to its first channel.
template <class S, class Out>
void correlate_pixels(const SmallFunctions<S, Out>& functions, const Correlation& g,
                      const Pixels<S>& pixels, const Real<S>* weights, const Real<S>* bias,
                      Activation activation, const Box& box, Out* out, int64_t out_row,
                      int64_t out_pixel) {
  const bool late = !kIsHalf<S> && is_late(activation);  // of stored sums
  const auto [p0, p1, q0, q1, c0, c1] = box;
  SmallTile<S, Out> tile;
  tile.in_row = pixels.row_step * g.dh;
  tile.in_column = pixels.pixel_step * g.dw;
  tile.weights = weights;
  tile.weights_tap = g.weights_tap;
  tile.bias = bias;
  tile.activation = late ? Activation::none : activation;
  tile.out_row = out_row * g.dh;
  tile.out_column = out_pixel * g.dw;
  tile.channels = c1 - c0;
  // Only outputs that are a multiple of the dilation apart share inputs.
  for (int64_t a = 0; a < min_of(g.dh, p1 - p0); ++a) {
    const int64_t rows = ceil_div(p1 - p0 - a, g.dh);
    const bool several = g.kh > 1 && rows >= kSmallRows;
    const int64_t high = several ? kSmallRows : 1;
    for (int64_t b = 0; b < min_of(g.dw, q1 - q0); ++b) {
      const int64_t columns = ceil_div(q1 - q0 - b, g.dw);
      for (int64_t r = 0; r < rows; r += high) {
        const int64_t p = a + min_of(r, rows - high) * g.dh;  // the last tile overlaps
        const int64_t top = (p0 + p) * g.sh - g.pt;
        const Range inside_rows = taps_inside(top, (high - 1) * g.sh + g.kh, g.dh, g.in_h);
        tile.row_first = inside_rows.first;
        tile.row_last = inside_rows.last;
        for (int64_t s = 0, wide = 0; s < columns; s += wide) {
          const TileColumns at = tile_columns(g, columns, [&](int size) {
            return q0 + b + min_of(s, columns - kTileColumns[size]) * g.dw;
          });
          wide = kTileColumns[at.size];
          tile.column_first = at.inside.first;
          tile.column_last = at.inside.last;
          tile.in = pixels.at(top, at.left);
          tile.out = out + p * out_row + (at.q - q0) * out_pixel;
          functions.by_rows[several][at.size](tile);
          // A tile that overlaps this one stores all of its sums again.
          if constexpr (!kIsHalf<S>) {
            for (int64_t i = 0; late && i < high; ++i)
              activate_late(tile.out + i * tile.out_row, wide, tile.out_column, tile.channels,
                            activation);
          }
        }
      }
    }
  }
}

// Computes a box of outputs of an image; `out` is where its first one goes. `bias` may be null.
// `copy` is scratch for a copy of the window, null where the image itself is read.
template <class S, class Out>
void correlate_small(const Correlation& g, const S* image, const Real<S>* weights,
                     const Real<S>* bias, Activation activation, const Box& box, Out* out,
                     int64_t out_row, int64_t out_pixel, S* copy) {
  const auto [p0, p1, q0, q1, c0, c1] = box;
  const SmallFunctions<S, Out>& functions = *pick_small<S, Out>(g);
  each_channel_part(
      g, image, window_of(g, p0, p1, q0, q1), c0, c1, copy,
      [&, p0 = p0, p1 = p1, q0 = q0, q1 = q1, c0 = c0](int64_t c, int64_t count, const auto& in) {
        correlate_pixels(functions, g, in, weights + c, bias == nullptr ? nullptr : bias + c,
                         activation, Box{p0, p1, q0, q1, c, c + count}, out + (c - c0), out_row,
                         out_pixel);
      });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
