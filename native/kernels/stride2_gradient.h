// The input gradient of a 3 x 3 kernel at stride 2 on a channels_last image.
//
// Counted with the padding, input row 2r sees output rows r (by tap row 0) and r - 1 (by tap row
// 2), and row 2r + 1 sees row r (by tap row 1); columns alike. A tile of two input rows by eight
// columns comes from two rows by five columns of output gradients, all nine weights in registers.
// Tensors are of S, sums and weights of Real<S>.
#pragma once
#include "../geometry.h"
#include "half.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

inline constexpr int kStride2Columns = 4;  // pairs of input columns in a tile

// Ranges say which of the tile's rows and columns exist: of dy's two rows and five columns, and of
// dx's two rows and eight columns.
template <class S>
struct Stride2Tile {
  const S* dy;  // of output (r - 1, s - 1)
  int64_t dy_row, dy_column;
  Range dy_rows, dy_columns;
  const Real<S>* weights;
  int64_t weights_tap;
  S* dx;  // of input (2r, 2s)
  int64_t dx_row, dx_column;
  Range dx_rows, dx_columns;
  int64_t channels;
};

template <class S>
void stride2_tile(const Stride2Tile<S>& a) {
  using T = Real<S>;
  constexpr int kVec = kLanes<T>, kColumns = kStride2Columns;
  for (int64_t begin = 0; begin < a.channels; begin += kVec) {
    // The last vector of channels overlaps the one before it.
    const int64_t c = min_of(begin, a.channels - kVec);
    Vec<T> w[3][3];
#pragma GCC unroll 4
    for (int i = 0; i < 3; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < 3; ++j) w[i][j] = load(a.weights + (i * 3 + j) * a.weights_tap + c);
    Vec<T> acc[2][2 * kColumns];
#pragma GCC unroll 2
    for (int p = 0; p < 2; ++p)
#pragma GCC unroll 8
      for (int q = 0; q < 2 * kColumns; ++q) acc[p][q] = zero<T>();
    const S* row = a.dy + c;
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r, row += a.dy_row) {
      if (r < a.dy_rows.first || r >= a.dy_rows.last) continue;
      const S* from = row;
#pragma GCC unroll 8
      for (int s = 0; s <= kColumns; ++s, from += a.dy_column) {
        if (s < a.dy_columns.first || s >= a.dy_columns.last) continue;
        const Vec<T> v = load_real(from);
        // v belongs to pair s - 1 of columns, and is the left neighbour of pair s.
        if (s > 0) {
          const int q = 2 * (s - 1);
          if (r == 1) {
            acc[0][q] += v * w[0][0];
            acc[0][q + 1] += v * w[0][1];
            acc[1][q] += v * w[1][0];
            acc[1][q + 1] += v * w[1][1];
          } else {
            acc[0][q] += v * w[2][0];
            acc[0][q + 1] += v * w[2][1];
          }
        }
        if (s < kColumns) {
          const int q = 2 * s;
          if (r == 1) {
            acc[0][q] += v * w[0][2];
            acc[1][q] += v * w[1][2];
          } else {
            acc[0][q] += v * w[2][2];
          }
        }
      }
    }
#pragma GCC unroll 2
    for (int p = 0; p < 2; ++p) {
      if (p < a.dx_rows.first || p >= a.dx_rows.last) continue;
#pragma GCC unroll 8
      for (int q = 0; q < 2 * kColumns; ++q)
        if (q >= a.dx_columns.first && q < a.dx_columns.last)
          store_real(a.dx + p * a.dx_row + q * a.dx_column + c, acc[p][q]);
    }
  }
}

// Which of `count` positions from `start` on lie in [first, last).
inline Range positions_inside(int64_t start, int64_t count, int64_t first, int64_t last) {
  const int64_t from = min_of(max_of(first - start, 0), count);
  return {from, max_of(from, min_of(last - start, count))};
}

// Computes input rows [h0, h1) of one image, of `channels` channels; `dy`, `dx` and `weights` begin
// at the first.
template <class S>
void stride2_input_gradient(const Geometry& g, const S* dy, const Real<S>* weights, int64_t h0,
                            int64_t h1, int64_t channels, S* dx) {
  Stride2Tile<S> tile;
  tile.dy_row = g.wo * g.c;
  tile.dy_column = g.c;
  tile.weights = weights;
  tile.weights_tap = g.c;
  tile.dx_row = g.w * g.c;
  tile.dx_column = g.c;
  tile.channels = channels;
  for (int64_t r = (h0 + g.pt) / 2; 2 * r - g.pt < h1; ++r) {
    tile.dy_rows = positions_inside(r - 1, 2, 0, g.ho);
    tile.dx_rows = positions_inside(2 * r - g.pt, 2, h0, h1);
    for (int64_t s = g.pl / 2; 2 * s - g.pl < g.w; s += kStride2Columns) {
      tile.dy_columns = positions_inside(s - 1, kStride2Columns + 1, 0, g.wo);
      tile.dx_columns = positions_inside(2 * s - g.pl, 2 * kStride2Columns, 0, g.w);
      tile.dy = dy + (r - 1) * tile.dy_row + (s - 1) * tile.dy_column;
      tile.dx = dx + (2 * r - g.pt) * tile.dx_row + (2 * s - g.pl) * tile.dx_column;
      stride2_tile(tile);
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
