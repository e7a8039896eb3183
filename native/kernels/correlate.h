// Channelwise correlation of a channels_last image, vectorised over channels: the forward pass, and
// with a flipped kernel the input gradient.
//
//   out[p, q, c] = sum_ij in[p*sh + i*dh - pt, q*sw + j*dw - pl, c] * weights[i, j, c]
//
// A row of outputs is computed a vector of channels at a time, in runs: neighbouring outputs that
// have the same taps inside the image. `kTile` outputs are computed together, so that an input
// vector, once loaded, serves all the outputs that see it. Needs at least kLanes channels: the last
// vector overlaps the one before it.
#pragma once
#include "small_kernel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// A run of outputs along a row, for one vector of channels; all taps are inside the image.
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
  // Images are most often multiples of 7 wide.
  constexpr int kTile = kRegisters == 16 && ROWS * KW > 7 ? 4 : 7;
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
    if (r.count > 3) run_tile<T, KW, STRIDE, ROWS, 3>(r, held, r.count - 3, start, activation);
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

// The taps of a row that are inside the image for some of the outputs [q, q + count).
inline Range taps_of_any(const Correlation& g, int64_t q, int64_t count) {
  const int64_t left = q * g.sw - g.pl, right = (q + count - 1) * g.sw - g.pl;
  const int64_t first = min_of(max_of(0, ceil_div(-right, g.dw)), g.kw);
  return {first, max_of(first, min_of(g.kw, floor_div(g.in_w - 1 - left, g.dw) + 1))};
}

// TILE neighbouring outputs, all of which see the whole row of `columns` inputs at `in`. The loop
// goes over inputs, not taps, since every output has other taps inside the image.
template <class T, int TILE>
inline void run_tile_whole(const Run<T>& r, const T* in, int64_t columns, const T* weights, T* out,
                           Vec<T> start, Activation activation) {
  Vec<T> acc[TILE];
#pragma GCC unroll 8
  for (int u = 0; u < TILE; ++u) acc[u] = start;
  for (int64_t i = 0; i < r.rows; ++i) {
    const T* from = in + i * r.in_row;
    const T* w = weights + i * r.weights_row;
    for (int64_t x = 0; x < columns; ++x, from += r.in_pixel, w += r.weights_tap) {
      const Vec<T> v = load(from);
#pragma GCC unroll 8
      for (int u = 0; u < TILE; ++u) acc[u] += v * load(w - u * r.weights_tap);
    }
  }
#pragma GCC unroll 8
  for (int u = 0; u < TILE; ++u) store(out + u * r.out_pixel, activate<T>(acc[u], activation));
}

// A run with padding among its inputs. Of a wide kernel, taps that see only padding for all outputs
// of a tile are left out. `q0` is the first output.
template <class T>
void run_padded(const Run<T>& whole, const Correlation& g, int64_t q0, Vec<T> start,
                Activation activation) {
  constexpr int kTile = 7;
  for (int64_t q = 0; q < whole.count; q += kTile) {
    // The last tile overlaps the one before it.
    const int64_t first = max_of(0, min_of(q, whole.count - kTile));
    Run<T> run = whole;
    run.count = min_of(kTile, whole.count);
    run.out += first * run.out_pixel;
    // Tap 0 of the first output sees column `left`; the last output's, six columns on.
    const int64_t left = (q0 + first) * g.sw - g.pl;
    if (run.count == kTile && g.sw == 1 && g.dw == 1 && left + kTile - 1 <= 0 &&
        left + g.kw >= g.in_w) {
      run_tile_whole<T, kTile>(run, run.in + (first - left) * run.in_pixel, g.in_w,
                               run.weights - left * run.weights_tap, run.out, start, activation);
      continue;
    }
    const Range taps = taps_of_any(g, q0 + first, run.count);
    run.taps = taps.last - taps.first;
    run.in += first * run.stride * run.in_pixel + taps.first * run.in_tap;
    run.weights += taps.first * run.weights_tap;
    if (run.count == kTile)
      run_tile_general<T, kTile>(run, 0, start, activation);
    else
      run_general<T>(run, start, activation);
  }
}

template <class T>
using RunFunction = void (*)(const Run<T>&, Vec<T>, Activation);

template <class T, int KW, int STRIDE>
RunFunction<T> pick_rows(int64_t rows) {
  // float64 serves gradient checks more than speed, so it gets fewer functions to compile.
  constexpr int kMostHeld = sizeof(T) == 8 ? 0 : 9;
  if constexpr (KW <= kMostHeld) {
    if (rows == 1) return run_fixed<T, KW, STRIDE, 1>;
  }
  if constexpr (2 * KW <= kMostHeld) {
    if (rows == 2) return run_fixed<T, KW, STRIDE, 2>;
  }
  if constexpr (3 * KW <= kMostHeld) {
    if (rows == 3) return run_fixed<T, KW, STRIDE, 3>;
  }
  return run_fixed<T, KW, STRIDE, 0>;
}

template <class T, int STRIDE>
RunFunction<T> pick_taps(int64_t taps, int64_t rows) {
  switch (taps) {
    case 1:
      return pick_rows<T, 1, STRIDE>(rows);
    case 2:
      return pick_rows<T, 2, STRIDE>(rows);
    case 3:
      return pick_rows<T, 3, STRIDE>(rows);
    case 4:
      return pick_rows<T, 4, STRIDE>(rows);
    case 5:
      return pick_rows<T, 5, STRIDE>(rows);
    case 7:
      return pick_rows<T, 7, STRIDE>(rows);
    default:
      return run_general<T>;
  }
}

template <class T>
RunFunction<T> pick_run(int64_t taps, int64_t rows, int64_t stride, int64_t dilation) {
  if (taps > 1 && dilation != 1) return run_general<T>;
  if (stride == 1) return pick_taps<T, 1>(taps, rows);
  if (stride == 2) return pick_taps<T, 2>(taps, rows);
  return run_general<T>;
}

// How a correlation is computed, which plan_depthwise.h decides: by tiles of a small kernel or not,
// and from copies of its windows in `strip` elements of scratch, or with 0 from the image itself.
struct CorrelationPlan {
  bool small = false;
  int64_t strip = 0;
};

// A strip of this window: one vector of channels of it, and of many weights.
template <class T>
int64_t strip_elements(const Correlation& g, const Window& w) {
  return (w.rows * w.columns + (g.kw >= tuning::kPaddedTaps ? g.kh * g.kw : 0)) * kLanes<T>;
}

// Copies the window's pixels of one vector of channels; rows outside the image are left as they
// are.
template <class T>
void fill_strip(const Correlation& g, const T* image, int64_t c, const Window& w, T* strip) {
  const int64_t before = min_of(w.columns, max_of(0, -w.column));
  const int64_t after = max_of(before, min_of(w.columns, g.in_w - w.column));
  for (int64_t r = 0; r < w.rows; ++r) {
    const int64_t h = w.row + r;
    if (h < 0 || h >= g.in_h) continue;
    T* to = strip + r * w.columns * kLanes<T>;
    const T* from = image + (h * g.in_w + w.column) * g.channels + c;
    for (int64_t q = 0; q < before; ++q) store(to + q * kLanes<T>, zero<T>());
    for (int64_t q = before; q < after; ++q) store(to + q * kLanes<T>, load(from + q * g.channels));
    for (int64_t q = after; q < w.columns; ++q) store(to + q * kLanes<T>, zero<T>());
  }
}

template <class T>
Pixels<T> strip_pixels(const Window& w, const T* strip) {
  return {strip, w.row, w.column, w.columns * kLanes<T>, kLanes<T>};
}

// Neighbouring outputs from `q` on, before `end`, that have the same taps inside the row.
struct EdgeRun {
  Range taps;
  int64_t count;
};
inline EdgeRun edge_run(const Correlation& g, int64_t q, int64_t end) {
  const int64_t left = q * g.sw - g.pl;
  EdgeRun run{taps_inside(left, g.kw, g.dw, g.in_w), 1};
  for (; q + run.count < end; ++run.count) {
    const Range next = taps_inside(left + run.count * g.sw, g.kw, g.dw, g.in_w);
    if (next.first != run.taps.first || next.last != run.taps.last) break;
  }
  return run;
}

// Computes a box of outputs; `out` is where its first one goes. `bias` may be null. `scratch` is as
// large as the plan's strip.
template <class T>
void correlate(const CorrelationPlan& plan, const Correlation& g, const T* image, const T* weights,
               const T* bias, Activation activation, const Box& box, T* out, int64_t out_row,
               int64_t out_pixel, T* scratch) {
  constexpr int kVec = kLanes<T>;
  const auto [p0, p1, q0, q1, c0, c1] = box;
  const Window window = window_of(g, p0, p1, q0, q1);
  T* const strip = plan.strip == 0 ? nullptr : scratch;
  if (plan.small) {
    correlate_small(g, image, weights, bias, activation, box, out, out_row, out_pixel, strip);
    return;
  }
  Range inside{q0, q1};
  if (strip == nullptr) {
    inside = outputs_inside(g.out_w, g.kw, g.sw, g.dw, g.pl, g.in_w);
    inside.first = min_of(max_of(inside.first, q0), q1);
    inside.last = min_of(max_of(inside.last, inside.first), q1);
  }
  // The weights of a vector of channels are copied too where they are many, since every tile reads
  // them again.
  T* const copied = strip != nullptr && g.kw >= tuning::kPaddedTaps
                        ? strip + window.rows * window.columns * kVec
                        : nullptr;
  const Activation in_registers = early(activation);
  const auto finish = [&](const Run<T>& run) {
    if (is_late(activation)) activate_late(run.out, run.count, out_pixel, kVec, activation);
  };
  Run<T> run;
  run.weights_tap = copied != nullptr ? kVec : g.weights_tap;
  run.weights_row = g.kw * run.weights_tap;
  run.stride = g.sw;
  run.out_pixel = out_pixel;
  for (int64_t block = c0; block < c1; block += kVec) {
    const int64_t c = min_of(block, c1 - kVec);
    const Vec<T> start = bias == nullptr ? zero<T>() : load(bias + c);
    Pixels<T> pixels = image_pixels(g, image, c);
    if (strip != nullptr) {
      fill_strip(g, image, c, window, strip);
      pixels = strip_pixels<T>(window, strip);
    }
    if (copied != nullptr)
      for (int64_t tap = 0; tap < g.kh * g.kw; ++tap)
        store(copied + tap * kVec, load(weights + tap * g.weights_tap + c));
    const T* const weights_of_block = copied != nullptr ? copied : weights + c;
    run.in_row = pixels.row_step * g.dh;
    run.in_pixel = pixels.pixel_step;
    run.in_tap = pixels.pixel_step * g.dw;
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t top = p * g.sh - g.pt;
      const Range rows = taps_inside(top, g.kh, g.dh, g.in_h);
      const int64_t first_row = top + rows.first * g.dh;
      run.rows = rows.last - rows.first;
      T* out_here = out + (p - p0) * out_row + (c - c0);
      const T* weights_here = weights_of_block + rows.first * run.weights_row;
      // At an edge, neighbours that have the same taps inside (many of them where dilation is
      // large) are one run.
      const auto edge = [&, q0 = q0](int64_t from, int64_t to) {
        for (int64_t q = from; q < to; q += run.count) {
          const EdgeRun here = edge_run(g, q, to);
          run.taps = here.taps.last - here.taps.first;
          run.count = here.count;
          run.in = pixels.at(first_row, q * g.sw - g.pl + here.taps.first * g.dw);
          run.weights = weights_here + here.taps.first * run.weights_tap;
          run.out = out_here + (q - q0) * out_pixel;
          run_general<T>(run, start, in_registers);
          finish(run);
        }
      };
      edge(q0, inside.first);
      if (inside.last > inside.first) {
        run.taps = g.kw;
        run.in = pixels.at(first_row, inside.first * g.sw - g.pl);
        run.weights = weights_here;
        run.count = inside.last - inside.first;
        run.out = out_here + (inside.first - q0) * out_pixel;
        if (copied != nullptr)
          run_padded<T>(run, g, inside.first, start, in_registers);
        else
          pick_run<T>(g.kw, run.rows, g.sw, g.dw)(run, start, in_registers);
        finish(run);
      }
      edge(inside.last, q1);
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
