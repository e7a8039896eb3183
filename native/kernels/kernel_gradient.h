// The depthwise kernel's gradient on a channels_last image, vectorised over channels:
//
//   dk[i, j, c] += sum_pq in[p*sh + i*dh - pt, q*sw + j*dw - pl, c] * dy[p, q, c]
//
// The sums of a row of taps (three rows at k = 3) stay in registers along a row of outputs.
#pragma once
#include "correlate.h"
#include "small_kernel_gradient.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class T>
struct GradientRun {
  const T* in;
  int64_t in_row, in_pixel, in_tap;
  const T* dy;
  int64_t dy_pixel;
  int64_t stride;
  int64_t count;
  int64_t taps;
};

// sums[i * KW + j], at dilation 1.
template <class T, int KW, int STRIDE, int ROWS>
void gradient_fixed(const GradientRun<T>& r, Vec<T>* sums) {
  constexpr int kTile = kRegisters == 32 ? 7 : 4;
  Vec<T> acc[ROWS][KW];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < KW; ++j) acc[i][j] = sums[i * KW + j];
  const auto tile = [&]<int TILE>(int64_t first) __attribute__((always_inline)) {
    Vec<T> dy[TILE];
#pragma GCC unroll 8
    for (int u = 0; u < TILE; ++u) dy[u] = load(r.dy + (first + u) * r.dy_pixel);
    const T* in = r.in + first * STRIDE * r.in_pixel;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 32
      for (int t = 0; t < (TILE - 1) * STRIDE + KW; ++t) {
        const Vec<T> v = load(in + i * r.in_row + t * r.in_pixel);
#pragma GCC unroll 8
        for (int u = 0; u < TILE; ++u) {
          const int j = t - u * STRIDE;
          if (j >= 0 && j < KW) acc[i][j] += v * dy[u];
        }
      }
    }
  };
  int64_t q = 0;
  for (; q + kTile <= r.count; q += kTile) tile.template operator()<kTile>(q);
  for (; q + 3 <= r.count; q += 3) tile.template operator()<3>(q);
  for (; q < r.count; ++q) tile.template operator()<1>(q);
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < KW; ++j) sums[i * KW + j] = acc[i][j];
}

// TAPS neighbouring taps of one row, at any dilation and stride.
template <class T, int TAPS>
inline void gradient_taps(const GradientRun<T>& r, const T* in, Vec<T>* sums) {
  Vec<T> acc[TAPS];
#pragma GCC unroll 8
  for (int j = 0; j < TAPS; ++j) acc[j] = sums[j];
  const int64_t step = r.stride * r.in_pixel;
  for (int64_t q = 0; q < r.count; ++q) {
    const Vec<T> dy = load(r.dy + q * r.dy_pixel);
#pragma GCC unroll 8
    for (int j = 0; j < TAPS; ++j) acc[j] += load(in + q * step + j * r.in_tap) * dy;
  }
#pragma GCC unroll 8
  for (int j = 0; j < TAPS; ++j) sums[j] = acc[j];
}

template <class T>
void gradient_general(const GradientRun<T>& r, Vec<T>* sums) {
  int64_t j = 0;
  for (; j + 8 <= r.taps; j += 8) gradient_taps<T, 8>(r, r.in + j * r.in_tap, sums + j);
  for (; j + 4 <= r.taps; j += 4) gradient_taps<T, 4>(r, r.in + j * r.in_tap, sums + j);
  for (; j < r.taps; ++j) gradient_taps<T, 1>(r, r.in + j * r.in_tap, sums + j);
}

// A run with padding among its inputs, which is left out for kTaps taps at a time.
template <class T>
void gradient_padded(const GradientRun<T>& whole, const Correlation& g, Vec<T>* sums) {
  constexpr int64_t kTaps = 8;
  for (int64_t j = 0; j < g.kw; j += kTaps) {
    GradientRun<T> run = whole;
    run.taps = min_of(kTaps, g.kw - j);
    // Outputs for which one of the taps is inside.
    const int64_t last_tap = (j + run.taps - 1) * g.dw - g.pl;
    const int64_t first = min_of(max_of(0, ceil_div(-last_tap, g.sw)), whole.count);
    const int64_t last =
        max_of(first, min_of(whole.count, floor_div(g.in_w - 1 + g.pl - j * g.dw, g.sw) + 1));
    run.count = last - first;
    run.dy += first * run.dy_pixel;
    run.in += first * run.stride * run.in_pixel + j * run.in_tap;
    gradient_general(run, sums + j);
  }
}

// How the rows of taps are computed: `group` at a time by `many`, the rest by `one`.
template <class T>
struct GradientFunctions {
  void (*many)(const GradientRun<T>&, Vec<T>*);
  int64_t group;
  void (*one)(const GradientRun<T>&, Vec<T>*);
};

template <class T, int STRIDE>
GradientFunctions<T> pick_gradient_taps(int64_t taps) {
  constexpr int kMore = kRegisters == 32 ? 2 : 1;
  switch (taps) {
    case 1:
      return {gradient_fixed<T, 1, STRIDE, 4>, 4, gradient_fixed<T, 1, STRIDE, 1>};
    case 2:
      return {gradient_fixed<T, 2, STRIDE, 4>, 4, gradient_fixed<T, 2, STRIDE, 1>};
    case 3:
      return {gradient_fixed<T, 3, STRIDE, 3>, 3, gradient_fixed<T, 3, STRIDE, 1>};
    case 5:
      return {gradient_fixed<T, 5, STRIDE, 2>, 2, gradient_fixed<T, 5, STRIDE, 1>};
    case 7:
      return {gradient_fixed<T, 7, STRIDE, kMore>, kMore, gradient_fixed<T, 7, STRIDE, 1>};
    default:
      return {gradient_general<T>, 1, gradient_general<T>};
  }
}

template <class T>
GradientFunctions<T> pick_gradient(int64_t taps, int64_t stride, int64_t dilation) {
  if (taps == 1 || dilation == 1) {
    if (stride == 1) return pick_gradient_taps<T, 1>(taps);
    if (stride == 2) return pick_gradient_taps<T, 2>(taps);
  }
  return {gradient_general<T>, 1, gradient_general<T>};
}

// Adds what the output rows [p0, p1) give to channels [c0, c1), at least kLanes of them, of dk [kh,
// kw, channels]. `dy` points to the gradient of output (p0, 0, 0); its pixels are as far apart as
// the image's. `sums` is scratch of kh * kw vectors; the other scratch as for correlate().
template <class T>
void add_kernel_gradient(const CorrelationPlan& plan, const Correlation& g, const T* image,
                         const T* dy, int64_t p0, int64_t p1, int64_t c0, int64_t c1, T* dk,
                         Vec<T>* sums, T* scratch) {
  constexpr int kVec = kLanes<T>;
  const int64_t channels = g.channels;
  const Window window = window_of(g, p0, p1, 0, g.out_w);
  T* const strip = plan.strip == 0 ? nullptr : scratch;
  if (plan.small) {
    add_small_gradient(g, image, dy, p0, p1, c0, c1, dk, strip);
    return;
  }
  const Range inside = strip != nullptr ? Range{0, g.out_w}
                                        : outputs_inside(g.out_w, g.kw, g.sw, g.dw, g.pl, g.in_w);
  const GradientFunctions<T> functions = pick_gradient<T>(g.kw, g.sw, g.dw);
  GradientRun<T> run;
  run.dy_pixel = channels;
  run.stride = g.sw;
  run.taps = g.kw;
  run.count = inside.last - inside.first;
  for (int64_t begin = c0; begin < c1; begin += kVec) {
    const int64_t c = min_of(begin, c1 - kVec);
    Pixels<T> pixels = image_pixels(g, image, c);
    if (strip != nullptr) {
      fill_strip(g, image, c, window, strip);
      pixels = strip_pixels<T>(window, strip);
    }
    run.in_row = pixels.row_step * g.dh;
    run.in_pixel = pixels.pixel_step;
    run.in_tap = pixels.pixel_step * g.dw;
    for (int64_t tap = 0; tap < g.kh * g.kw; ++tap) sums[tap] = zero<T>();
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t top = p * g.sh - g.pt;
      const Range rows = taps_inside(top, g.kh, g.dh, g.in_h);
      const T* dy_here = dy + (p - p0) * g.out_w * channels + c;
      if (run.count > 0) {
        run.dy = dy_here + inside.first * channels;
        const int64_t column = inside.first * g.sw - g.pl;
        int64_t i = rows.first;
        for (; i + functions.group <= rows.last; i += functions.group) {
          run.in = pixels.at(top + i * g.dh, column);
          functions.many(run, sums + i * g.kw);
        }
        for (; i < rows.last; ++i) {
          run.in = pixels.at(top + i * g.dh, column);
          if (strip != nullptr && g.kw >= tuning::kPaddedTaps)
            gradient_padded(run, g, sums + i * g.kw);
          else
            functions.one(run, sums + i * g.kw);
        }
      }
      const auto edge = [&](int64_t from, int64_t to) {
        GradientRun<T> part = run;
        for (int64_t q = from; q < to; q += part.count) {
          const EdgeRun here = edge_run(g, q, to);
          part.count = here.count;
          part.taps = here.taps.last - here.taps.first;
          part.dy = dy_here + q * channels;
          for (int64_t i = rows.first; i < rows.last; ++i) {
            part.in = pixels.at(top + i * g.dh, q * g.sw - g.pl + here.taps.first * g.dw);
            gradient_general(part, sums + i * g.kw + here.taps.first);
          }
        }
      };
      edge(0, inside.first);
      edge(inside.last, g.out_w);
    }
    for (int64_t tap = 0; tap < g.kh * g.kw; ++tap) {
      T* to = dk + tap * g.weights_tap + c;
      if (begin == c) {
        store(to, load(to) + sums[tap]);
        continue;
      }
      // The last vector of channels overlaps the one before it: those lanes are already counted.
      for (int64_t lane = begin - c; lane < kVec; ++lane) to[lane] += sums[tap][lane];
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
