// The gradient of kernels of 3 x 3, 5 x 5, 1 x 3 and 3 x 1 taps on a channels_last image, by the
// register tiles of small_kernel.h: the sums of all taps, of 5 x 5 those of a row of taps after the
// other, and the gradients of a tile's outputs are in registers. Tensors are of S, sums of Real<S>.
#pragma once
#include "small_kernel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// The ranges are those of SmallTile.
template <class S>
struct SmallGradientTile {
  const S* in;
  int64_t in_row, in_column;
  int64_t row_first, row_last, column_first, column_last;
  const S* dy;
  int64_t dy_row, dy_column;
  Real<S>* dk;  // added to
  int64_t dk_tap;
  int64_t channels;
};

// `v` with zeros before lane `first`.
template <class T>
inline Vec<T> from_lane(Vec<T> v, int64_t first) {
  Vec<T> index;
  for (int lane = 0; lane < kLanes<T>; ++lane) index[lane] = static_cast<T>(lane);
  return index >= broadcast(static_cast<T>(first)) ? v : zero<T>();
}

template <class S, int KH, int KW, int STRIDE, int ROWS, int COLUMNS>
void small_gradient_tile(const SmallGradientTile<S>& a) {
  using T = Real<S>;
  constexpr int kVec = kLanes<T>;
  constexpr int kSeen = (COLUMNS - 1) * STRIDE + KW, kChecked = kEdge<KW, STRIDE, COLUMNS>;
  for (int64_t begin = 0; begin < a.channels; begin += kVec) {
    // The last vector of channels overlaps the one before it: those lanes are already counted.
    const int64_t c = min_of(begin, a.channels - kVec);
    Vec<T> dy[ROWS][COLUMNS];
#pragma GCC unroll 4
    for (int p = 0; p < ROWS; ++p)
#pragma GCC unroll 8
      for (int q = 0; q < COLUMNS; ++q)
        dy[p][q] = load_real(a.dy + p * a.dy_row + q * a.dy_column + c);
    const auto add = [&](int i, int j, Vec<T> sum) __attribute__((always_inline)) {
      T* to = a.dk + (i * KW + j) * a.dk_tap + c;
      store(to, load(to) + (begin == c ? sum : from_lane<T>(sum, begin - c)));
    };
    // Calls f(v, t) for the inputs v of row r, which are columns t.
    const S* const in = a.in + c;
    const auto each_input = [&](int r, auto&& f) __attribute__((always_inline)) {
      if (r < a.row_first || r >= a.row_last) return;
      const S* from = in + r * a.in_row;
#pragma GCC unroll 32
      for (int t = 0; t < kSeen; ++t, from += a.in_column) {
        if (t < kChecked && t < a.column_first) continue;
        if (t >= kSeen - kChecked && t >= a.column_last) continue;
        f(load_real(from), t);
      }
    };
    if constexpr (KH * KW <= 9) {
      Vec<T> sums[KH][KW];
#pragma GCC unroll 4
      for (int i = 0; i < KH; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < KW; ++j) sums[i][j] = zero<T>();
#pragma GCC unroll 8
      for (int r = 0; r < (ROWS - 1) * STRIDE + KH; ++r)
        each_input(r, [&](Vec<T> v, int t) __attribute__((always_inline)) {
#pragma GCC unroll 4
          for (int p = 0; p < ROWS; ++p) {
            const int i = r - p * STRIDE;
            if (i < 0 || i >= KH) continue;
#pragma GCC unroll 8
            for (int q = 0; q < COLUMNS; ++q) {
              const int j = t - q * STRIDE;
              if (j >= 0 && j < KW) sums[i][j] += v * dy[p][q];
            }
          }
        });
#pragma GCC unroll 4
      for (int i = 0; i < KH; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < KW; ++j) add(i, j, sums[i][j]);
    } else {
      // Sums of each row of outputs by themselves, so that more of them do not wait for each other.
      for (int i = 0; i < KH; ++i) {
        Vec<T> sums[ROWS][KW];
#pragma GCC unroll 4
        for (int p = 0; p < ROWS; ++p)
#pragma GCC unroll 8
          for (int j = 0; j < KW; ++j) sums[p][j] = zero<T>();
#pragma GCC unroll 4
        for (int p = 0; p < ROWS; ++p)
          each_input(p * STRIDE + i, [&](Vec<T> v, int t) __attribute__((always_inline)) {
#pragma GCC unroll 8
            for (int q = 0; q < COLUMNS; ++q) {
              const int j = t - q * STRIDE;
              if (j >= 0 && j < KW) sums[p][j] += v * dy[p][q];
            }
          });
#pragma GCC unroll 8
        for (int j = 0; j < KW; ++j) {
          Vec<T> sum = sums[0][j];
#pragma GCC unroll 4
          for (int p = 1; p < ROWS; ++p) sum += sums[p][j];
          add(i, j, sum);
        }
      }
    }
  }
}

template <class S>
struct SmallGradientFunctions {
  using Function = void (*)(const SmallGradientTile<S>&);
  Function by_rows[2][3];  // as SmallFunctions
};

template <class S, int KH, int KW, int STRIDE>
const SmallGradientFunctions<S>& small_gradient_functions() {
  constexpr int kMost = KH == 1 ? 1 : kSmallRows;
  static constexpr SmallGradientFunctions<S> functions{
      {{small_gradient_tile<S, KH, KW, STRIDE, 1, 1>, small_gradient_tile<S, KH, KW, STRIDE, 1, 3>,
        small_gradient_tile<S, KH, KW, STRIDE, 1, kSmallColumns>},
       {small_gradient_tile<S, KH, KW, STRIDE, kMost, 1>,
        small_gradient_tile<S, KH, KW, STRIDE, kMost, 3>,
        small_gradient_tile<S, KH, KW, STRIDE, kMost, kSmallColumns>}}};
  return functions;
}

// Of a kernel for which pick_small() has tiles in the forward pass; null where there are none here.
template <class S>
const SmallGradientFunctions<S>* pick_small_gradient(const Correlation& g) {
  if constexpr (sizeof(Real<S>) == 4) {
    if constexpr (kRegisters == 32) {
      if (g.kh == 5)
        return g.sw == 2 ? &small_gradient_functions<S, 5, 5, 2>()
                         : &small_gradient_functions<S, 5, 5, 1>();
    }
    if (g.kh == 2 || g.kw == 2) return nullptr;
    if (g.sw == 2) return &small_gradient_functions<S, 3, 3, 2>();
    if (g.kh == 1) return &small_gradient_functions<S, 1, 3, 1>();
    if (g.kw == 1) return &small_gradient_functions<S, 3, 1, 1>();
    return &small_gradient_functions<S, 3, 3, 1>();
  }
  return nullptr;
}

// Adds what the output rows [p0, p1) give to `channels` channels of dk. `pixels`, `dy` and `dk`
// point to the first of these channels, `dy` to output (p0, 0). Tiles do not overlap here: outputs
// would count twice.
template <class S>
void add_pixels_gradient(const SmallGradientFunctions<S>& functions, const Correlation& g,
                         const Pixels<S>& pixels, const S* dy, int64_t p0, int64_t p1,
                         int64_t channels, Real<S>* dk) {
  SmallGradientTile<S> tile;
  tile.in_row = pixels.row_step * g.dh;
  tile.in_column = pixels.pixel_step * g.dw;
  tile.dy_row = g.out_w * g.channels * g.dh;
  tile.dy_column = g.channels * g.dw;
  tile.dk = dk;
  tile.dk_tap = g.weights_tap;
  tile.channels = channels;
  for (int64_t a = 0; a < min_of(g.dh, p1 - p0); ++a) {
    const int64_t rows = ceil_div(p1 - p0 - a, g.dh);
    for (int64_t r = 0, high = 0; r < rows; r += high) {
      const bool several = g.kh > 1 && rows - r >= kSmallRows;
      high = several ? kSmallRows : 1;
      const int64_t p = a + r * g.dh;
      const int64_t top = (p0 + p) * g.sh - g.pt;
      const Range inside_rows = taps_inside(top, (high - 1) * g.sh + g.kh, g.dh, g.in_h);
      tile.row_first = inside_rows.first;
      tile.row_last = inside_rows.last;
      for (int64_t b = 0; b < min_of(g.dw, g.out_w); ++b) {
        const int64_t columns = ceil_div(g.out_w - b, g.dw);
        for (int64_t s = 0, wide = 0; s < columns; s += wide) {
          const TileColumns at = tile_columns(g, columns - s, [&](int) { return b + s * g.dw; });
          wide = kTileColumns[at.size];
          tile.column_first = at.inside.first;
          tile.column_last = at.inside.last;
          tile.in = pixels.at(top, at.left);
          tile.dy = dy + (p * g.out_w + at.q) * g.channels;
          functions.by_rows[several][at.size](tile);
        }
      }
    }
  }
}

// The same of channels [c0, c1) of an image, of dy and of dk. `copy` is as for correlate_small().
template <class S>
void add_small_gradient(const Correlation& g, const S* image, const S* dy, int64_t p0, int64_t p1,
                        int64_t c0, int64_t c1, Real<S>* dk, S* copy) {
  const SmallGradientFunctions<S>& functions = *pick_small_gradient<S>(g);
  each_channel_part(g, image, window_of(g, p0, p1, 0, g.out_w), c0, c1, copy,
                    [&](int64_t c, int64_t count, const auto& in) {
                      add_pixels_gradient(functions, g, in, dy + c, p0, p1, count, dk + c);
                    });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
