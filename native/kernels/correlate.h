// Channelwise correlation of a channels_last image, vectorised over channels: the forward pass,
// and with a flipped kernel the input gradient.
//
//   out[p, q, c] = sum_ij in[p*sh + i*dh - pt, q*sw + j*dw - pl, c] * weights[i, j, c]
//
// A row of outputs is worked through a vector of channels at a time, in runs of neighbours that have
// the same taps inside the row. `kTile` of them are computed together so that an input vector, once
// loaded, serves all the outputs it belongs to. Needs at least kLanes channels: the last
// vector overlaps the one before it.
#pragma once
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Pads may be negative: the window then starts inside the image.
struct Correlation {
  int64_t in_h, in_w, channels;
  int64_t kh, kw, sh, sw, dh, dw, pt, pl;
  int64_t out_w;
};

// The range [first, last) of kernel taps that fall inside `size` when the window starts at `start`.
struct TapRange {
  int64_t first, last;
};
inline TapRange taps_inside(int64_t start, int64_t taps, int64_t dilation, int64_t size) {
  // Nearly always all are inside: the divisions below are worth avoiding.
  if (start >= 0 && start + (taps - 1) * dilation < size) return {0, taps};
  const int64_t first = start >= 0 ? 0 : ceil_div(-start, dilation);
  const int64_t last = size - start <= 0 ? 0 : ceil_div(size - start, dilation);
  TapRange range{min_of(first, taps), min_of(last, taps)};
  if (range.last < range.first) range.last = range.first;
  return range;
}

// The range [first, last) of outputs, within [0, count), all of whose taps fall inside `size`.
inline TapRange outputs_inside(int64_t count, int64_t taps, int64_t stride, int64_t dilation,
                               int64_t pad, int64_t size) {
  int64_t first = ceil_div(pad, stride);
  int64_t last = floor_div(size - 1 + pad - (taps - 1) * dilation, stride) + 1;
  first = min_of(max_of(first, 0), count);
  last = min_of(max_of(last, first), count);
  return {first, last};
}

// One run of outputs along a row, for one vector of channels, all taps inside.
template <class T>
struct Run {
  const T* in;       // the first tap of the first output
  int64_t in_row;    // elements from a tap's row to the next tap's
  int64_t in_pixel;  // elements from an input pixel to the next
  int64_t in_tap;    // elements from a tap to the next in its row: dw * in_pixel
  const T* weights;  // the first tap's
  int64_t weights_row, weights_tap;
  int64_t rows, taps;
  int64_t stride;
  int64_t count;
  T* out;
  int64_t out_pixel;
};

// ROWS = 0: the number of rows is known at run time only, and their weights are loaded a row at a
// time; else all weights stay in registers.
template <class T, int KW, int STRIDE, int ROWS, int TILE>
inline void run_tile(const Run<T>& r, const Vec<T> (&held)[ROWS == 0 ? 1 : ROWS][KW], int64_t first,
                     Vec<T> start, Activation activation) {
  constexpr int kInputs = (TILE - 1) * STRIDE + KW;
  Vec<T> acc[TILE];
#pragma GCC unroll 16
  for (int u = 0; u < TILE; ++u) acc[u] = start;
  const T* row = r.in + first * STRIDE * r.in_pixel;
  const T* weights = r.weights;
  const int64_t rows = ROWS == 0 ? r.rows : ROWS;
#pragma GCC unroll 8
  for (int64_t i = 0; i < rows; ++i) {
    Vec<T> w[KW];
#pragma GCC unroll 8
    for (int j = 0; j < KW; ++j) {
      if constexpr (ROWS == 0)
        w[j] = load(weights + j * r.weights_tap);
      else
        w[j] = held[i][j];
    }
#pragma GCC unroll 32
    for (int t = 0; t < kInputs; ++t) {
      const Vec<T> v = load(row + t * r.in_pixel);
#pragma GCC unroll 16
      for (int u = 0; u < TILE; ++u) {
        const int j = t - u * STRIDE;
        if (j >= 0 && j < KW) acc[u] += v * w[j];
      }
    }
    row += r.in_row;
    weights += r.weights_row;
  }
#pragma GCC unroll 16
  for (int u = 0; u < TILE; ++u)
    store(r.out + (first + u) * r.out_pixel, activate<T>(acc[u], activation));
}

// KW taps a row at dilation 1. The last tile overlaps the one before it.
template <class T, int KW, int STRIDE, int ROWS>
void run_fixed(const Run<T>& r, Vec<T> start, Activation activation) {
  constexpr int kHeld = ROWS * KW;
  constexpr int kTile = kRegisters == 32 ? (kHeld > 16 ? 4 : 6) : (ROWS != 0 || KW < 7 ? 4 : 5);
  Vec<T> held[ROWS == 0 ? 1 : ROWS][KW] = {};
  if constexpr (ROWS != 0) {
    for (int i = 0; i < ROWS; ++i)
      for (int j = 0; j < KW; ++j)
        held[i][j] = load(r.weights + i * r.weights_row + j * r.weights_tap);
  }
  int64_t q = 0;
  for (; q + kTile <= r.count; q += kTile)
    run_tile<T, KW, STRIDE, ROWS, kTile>(r, held, q, start, activation);
  if (q == r.count) return;
  if (r.count >= kTile) {
    run_tile<T, KW, STRIDE, ROWS, kTile>(r, held, r.count - kTile, start, activation);
  } else if (r.count >= 3) {
    run_tile<T, KW, STRIDE, ROWS, 3>(r, held, 0, start, activation);
    if (r.count > 3)
      run_tile<T, KW, STRIDE, ROWS, 3>(r, held, r.count - 3, start, activation);
  } else {
    for (; q < r.count; ++q) run_tile<T, KW, STRIDE, ROWS, 1>(r, held, q, start, activation);
  }
}

// Any taps, dilation and stride: a weight vector, once loaded, serves TILE outputs.
template <class T, int TILE>
inline void run_tile_general(const Run<T>& r, int64_t first, Vec<T> start, Activation activation) {
  Vec<T> acc[TILE];
#pragma GCC unroll 16
  for (int u = 0; u < TILE; ++u) acc[u] = start;
  const int64_t step = r.stride * r.in_pixel;
  const T* row = r.in + first * step;
  for (int64_t i = 0; i < r.rows; ++i) {
    const T* tap = row + i * r.in_row;
    const T* weights = r.weights + i * r.weights_row;
    for (int64_t j = 0; j < r.taps; ++j) {
      const Vec<T> w = load(weights);
#pragma GCC unroll 16
      for (int u = 0; u < TILE; ++u) acc[u] += load(tap + u * step) * w;
      tap += r.in_tap;
      weights += r.weights_tap;
    }
  }
#pragma GCC unroll 16
  for (int u = 0; u < TILE; ++u)
    store(r.out + (first + u) * r.out_pixel, activate<T>(acc[u], activation));
}

template <class T>
void run_general(const Run<T>& r, Vec<T> start, Activation activation) {
  constexpr int kTile = 8;
  int64_t q = 0;
  for (; q + kTile <= r.count; q += kTile) run_tile_general<T, kTile>(r, q, start, activation);
  if (q == r.count) return;
  if (r.count >= kTile) {
    run_tile_general<T, kTile>(r, r.count - kTile, start, activation);
  } else if (r.count >= 4) {
    run_tile_general<T, 4>(r, 0, start, activation);
    run_tile_general<T, 4>(r, r.count - 4, start, activation);
  } else {
    for (; q < r.count; ++q) run_tile_general<T, 1>(r, q, start, activation);
  }
}

template <class T>
using RunFunction = void (*)(const Run<T>&, Vec<T>, Activation);

template <class T, int KW, int STRIDE>
RunFunction<T> pick_rows(int64_t rows) {
  // float64 is for checking gradients more than for speed, and is spared the longer compilation.
  constexpr int kMostHeld = sizeof(T) == 8 ? 0 : kRegisters == 32 ? 25 : 9;
  if constexpr (KW <= kMostHeld) {
    if (rows == 1) return run_fixed<T, KW, STRIDE, 1>;
  }
  if constexpr (2 * KW <= kMostHeld) {
    if (rows == 2) return run_fixed<T, KW, STRIDE, 2>;
  }
  if constexpr (3 * KW <= kMostHeld) {
    if (rows == 3) return run_fixed<T, KW, STRIDE, 3>;
  }
  if constexpr (KW >= 5 && 5 * KW <= kMostHeld) {
    if (rows == 5) return run_fixed<T, KW, STRIDE, 5>;
  }
  return run_fixed<T, KW, STRIDE, 0>;
}

template <class T, int STRIDE>
RunFunction<T> pick_taps(int64_t taps, int64_t rows) {
  switch (taps) {
    case 1: return pick_rows<T, 1, STRIDE>(rows);
    case 2: return pick_rows<T, 2, STRIDE>(rows);
    case 3: return pick_rows<T, 3, STRIDE>(rows);
    case 4: return pick_rows<T, 4, STRIDE>(rows);
    case 5: return pick_rows<T, 5, STRIDE>(rows);
    case 7: return pick_rows<T, 7, STRIDE>(rows);
    default: return run_general<T>;
  }
}

template <class T>
RunFunction<T> pick_run(int64_t taps, int64_t rows, int64_t stride, int64_t dilation) {
  if (taps > 1 && dilation != 1) return run_general<T>;
  if (stride == 1) return pick_taps<T, 1>(taps, rows);
  if (stride == 2) return pick_taps<T, 2>(taps, rows);
  return run_general<T>;
}

// A box of outputs: rows [p0, p1), columns [q0, q1), channels [c0, c1), of which there are at
// least kLanes.
struct Box {
  int64_t p0, p1, q0, q1, c0, c1;
};

// Computes a box of outputs; `out` is where its first one goes. `bias` may be null.
template <class T>
void correlate(const Correlation& g, const T* image, const T* weights, const T* bias,
               Activation activation, const Box& box, T* out, int64_t out_row,
               int64_t out_pixel) {
  constexpr int kVec = kLanes<T>;
  const int64_t channels = g.channels;
  const auto [p0, p1, q0, q1, c0, c1] = box;
  const int64_t in_row = g.in_w * channels;
  TapRange inside = outputs_inside(g.out_w, g.kw, g.sw, g.dw, g.pl, g.in_w);
  inside.first = min_of(max_of(inside.first, q0), q1);
  inside.last = min_of(max_of(inside.last, inside.first), q1);
  Run<T> run;
  run.in_row = in_row * g.dh;
  run.in_pixel = channels;
  run.weights_row = g.kw * channels;
  run.weights_tap = channels;
  run.stride = g.sw;
  run.out_pixel = out_pixel;
  for (int64_t block = c0; block < c1; block += kVec) {
    const int64_t c = min_of(block, c1 - kVec);
    const Vec<T> start = bias == nullptr ? zero<T>() : load(bias + c);
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t top = p * g.sh - g.pt;
      const TapRange rows = taps_inside(top, g.kh, g.dh, g.in_h);
      run.rows = rows.last - rows.first;
      T* out_here = out + (p - p0) * out_row + (c - c0);
      const T* in_here = image + (top + rows.first * g.dh) * in_row + c;
      const T* weights_here = weights + rows.first * run.weights_row + c;
      // At an edge, neighbours that have the same taps inside (many of them where dilation is
      // large) are one run.
      const auto edge = [&, q0 = q0](int64_t from, int64_t to) {
        run.in_tap = g.dw * channels;
        for (int64_t q = from; q < to; q += run.count) {
          const int64_t left = q * g.sw - g.pl;
          const TapRange taps = taps_inside(left, g.kw, g.dw, g.in_w);
          run.count = 1;
          for (; q + run.count < to; ++run.count) {
            const TapRange next = taps_inside(left + run.count * g.sw, g.kw, g.dw, g.in_w);
            if (next.first != taps.first || next.last != taps.last) break;
          }
          run.taps = taps.last - taps.first;
          run.in = in_here + (left + taps.first * g.dw) * channels;
          run.weights = weights_here + taps.first * channels;
          run.out = out_here + (q - q0) * out_pixel;
          run_general<T>(run, start, activation);
        }
      };
      edge(q0, inside.first);
      if (inside.last > inside.first) {
        run.taps = g.kw;
        run.in_tap = g.dw * channels;
        run.in = in_here + (inside.first * g.sw - g.pl) * channels;
        run.weights = weights_here;
        run.count = inside.last - inside.first;
        run.out = out_here + (inside.first - q0) * out_pixel;
        pick_run<T>(g.kw, run.rows, g.sw, g.dw)(run, start, activation);
      }
      edge(inside.last, q1);
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
