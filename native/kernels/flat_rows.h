// Channelwise correlation of channels_last images with few channels, at stride 1 along the width. A
// row is taken as one line of pixels times channels, and vectors go along it whatever the number of
// channels.
//
//   out[p, e, m] = sum_ij in[p*sh + i*dh - pt, e + (j*dw - pl) * c] * weights[i, j, e % c, m],
//
// where element e of a row is channel e % c of pixel e / c. The weights of a tap are repeated to c
// + kLanes elements, so that those of the vector at e begin at e % c. An input vector, once loaded,
// serves the results of all m.
#pragma once
#include "activation.h"
#include "half.h"
#include "parallel.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Sizes of a correlation. In an input gradient the image has `planes` results of each channel side
// by side, which are added up; in a forward pass the output has `m` of them.
struct FlatSizes {
  int64_t in_h, in_w, c, planes, m;
  int64_t kh, kw, sh, dh, dw, pt, pl;
  int64_t out_w;
};

// A row of outputs, or a piece of one, and the rows of taps that see it.
template <class T>
struct FlatRun {
  const T* in;  // the first tap of the row's first element
  int64_t in_plane, in_row, in_tap;
  int64_t planes, rows, taps;
  const T* weights;  // the first tap's
  int64_t weights_plane, weights_m, weights_row, weights_tap;
  const T* bias;  // repeated as weights are; may be null
  int64_t c, m;
  Activation activation;
};

// to[i * m + r] = parts[r][i] for r < M.
template <class T, int M>
inline void interleave(const Vec<T> (&parts)[M], int64_t m, T* to) {
  T lanes[M][kLanes<T>];
#pragma GCC unroll 2
  for (int r = 0; r < M; ++r) store(lanes[r], parts[r]);
  if (m == M) {  // a constant, which compilers turn into shuffles
    for (int i = 0; i < kLanes<T>; ++i)
      for (int r = 0; r < M; ++r) to[i * M + r] = lanes[r][i];
    return;
  }
  for (int i = 0; i < kLanes<T>; ++i)
    for (int r = 0; r < M; ++r) to[i * m + r] = lanes[r][i];
}

// Computes TILE vectors, e, e + kLanes and so on, of the results m0 to m0 + M - 1. Every PHASES-th
// vector has the same weights.
template <class T, int M, int TILE, int PHASES>
inline void flat_tile(const FlatRun<T>& a, int64_t e, int64_t m0, T* out) {
  constexpr int kVec = kLanes<T>;
  constexpr int kPhases = PHASES < TILE ? PHASES : TILE;
  int64_t phase[TILE];
#pragma GCC unroll 12
  for (int u = 0; u < TILE; ++u) phase[u] = (e + u % kPhases * kVec) % a.c;
  Vec<T> acc[TILE][M];
#pragma GCC unroll 12
  for (int u = 0; u < TILE; ++u)
#pragma GCC unroll 2
    for (int r = 0; r < M; ++r)
      acc[u][r] = a.bias == nullptr ? zero<T>() : load(a.bias + (m0 + r) * (a.c + kVec) + phase[u]);
  for (int64_t plane = 0; plane < a.planes; ++plane)
    for (int64_t i = 0; i < a.rows; ++i) {
      const T* in = a.in + plane * a.in_plane + i * a.in_row + e;
      const T* weights = a.weights + plane * a.weights_plane + m0 * a.weights_m + i * a.weights_row;
      for (int64_t j = 0; j < a.taps; ++j, in += a.in_tap, weights += a.weights_tap) {
        Vec<T> w[kPhases][M];
#pragma GCC unroll 12
        for (int f = 0; f < kPhases; ++f)
#pragma GCC unroll 2
          for (int r = 0; r < M; ++r) w[f][r] = load(weights + r * a.weights_m + phase[f]);
#pragma GCC unroll 12
        for (int u = 0; u < TILE; ++u) {
          const Vec<T> v = load(in + u * kVec);
#pragma GCC unroll 2
          for (int r = 0; r < M; ++r) acc[u][r] += v * w[u % kPhases][r];
        }
      }
    }
#pragma GCC unroll 12
  for (int u = 0; u < TILE; ++u) {
#pragma GCC unroll 2
    for (int r = 0; r < M; ++r) acc[u][r] = activate<T>(acc[u][r], a.activation);
    T* to = out + (e + u * kVec) * a.m + m0;
    if (M == 1 && a.m == 1)
      store(to, acc[u][0]);
    else
      interleave<T, M>(acc[u], a.m, to);
  }
}

template <class T, int M, int PHASES>
void flat_run(const FlatRun<T>& a, int64_t length, int64_t m0, T* out) {
  constexpr int kVec = kLanes<T>, kMost = kRegisters == 32 ? 9 : 4;
  constexpr int kTile = kMost / PHASES == 0 ? kMost : kMost / PHASES * PHASES;
  int64_t e = 0;
  for (; e + kTile * kVec <= length; e += kTile * kVec)
    flat_tile<T, M, kTile, PHASES>(a, e, m0, out);
  for (; e + kVec <= length; e += kVec) flat_tile<T, M, 1, PHASES>(a, e, m0, out);
  if (e < length) flat_tile<T, M, 1, PHASES>(a, length - kVec, m0, out);  // overlaps
}

template <class T, int M>
void flat_run_of(const FlatRun<T>& a, int64_t length, int64_t m0, T* out) {
  constexpr int kAllApart = 16;  // more than a tile has vectors
  if (kLanes<T> % a.c == 0)
    flat_run<T, M, 1>(a, length, m0, out);
  else if (3 * kLanes<T> % a.c == 0)
    flat_run<T, M, 3>(a, length, m0, out);
  else
    flat_run<T, M, kAllApart>(a, length, m0, out);
}

// A row shorter than a vector, an element at a time.
template <class T>
void flat_short(const FlatRun<T>& a, int64_t length, T* out) {
  for (int64_t e = 0; e < length; ++e)
    for (int64_t r = 0; r < a.m; ++r) {
      T total = a.bias == nullptr ? T(0) : a.bias[r * (a.c + kLanes<T>)+e % a.c];
      for (int64_t plane = 0; plane < a.planes; ++plane)
        for (int64_t i = 0; i < a.rows; ++i)
          for (int64_t j = 0; j < a.taps; ++j)
            total += a.in[plane * a.in_plane + i * a.in_row + j * a.in_tap + e] *
                     a.weights[plane * a.weights_plane + r * a.weights_m + i * a.weights_row +
                               j * a.weights_tap + e % a.c];
      out[e * a.m + r] = activate_scalar(total, a.activation);
    }
}

// to[r * plane + i] = from[i * m + r]: splits interleaved results into planes, as they are or of a
// half type.
template <class S, class T>
void separate(const S* from, int64_t count, int64_t m, int64_t plane, T* to) {
  if constexpr (!kSame<S, T>) {
    if (m == 1) {
      convert_run(from, count, to);
      return;
    }
    constexpr int64_t kRun = 256;
    T run[kRun];
    int64_t i = 0, r = 0;
    for (int64_t first = 0; first < count * m; first += kRun) {
      const int64_t here = min_of(kRun, count * m - first);
      convert_run(from + first, here, run);
      for (int64_t k = 0; k < here; ++k) {
        to[r * plane + i] = run[k];
        if (++r < m) continue;
        r = 0;
        ++i;
      }
    }
  } else if (m == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  } else if (m == 2) {  // a constant, which compilers turn into shuffles
    for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
    for (int64_t i = 0; i < count; ++i) to[plane + i] = from[2 * i + 1];
  } else {
    for (int64_t r = 0; r < m; ++r)
      for (int64_t i = 0; i < count; ++i) to[r * plane + i] = from[i * m + r];
  }
}

// The window of a band's input rows as [planes][row][element], zeros where it is outside the image.
struct FlatWindow {
  int64_t row, column, rows, columns;
  int64_t elements(int64_t c, int64_t planes) const { return planes * rows * columns * c; }
};

template <class S, class T>
void fill_window(const FlatSizes& g, const S* image, const FlatWindow& w, T* to) {
  const int64_t first = min_of(w.columns, max_of(0, -w.column));
  const int64_t last = max_of(first, min_of(w.columns, g.in_w - w.column));
  const int64_t length = w.columns * g.c, plane = w.rows * length;
  for (int64_t r = 0; r < w.rows; ++r) {
    T* here = to + r * length;
    const int64_t h = w.row + r;
    const bool inside = h >= 0 && h < g.in_h && first < last;
    for (int64_t s = 0; s < g.planes; ++s) {
      fill_zero(here + s * plane, inside ? first * g.c : length);
      if (inside) fill_zero(here + s * plane + last * g.c, (w.columns - last) * g.c);
    }
    if (inside)
      separate(image + ((h * g.in_w) + w.column + first) * g.c * g.planes, (last - first) * g.c,
               g.planes, plane, here + first * g.c);
  }
}

// A correlation, computed a band at a time.
template <class T>
class FlatRows {
 public:
  // `weights` is what spread() has written.
  FlatRows(const FlatSizes& sizes, bool biased, const T* weights)
      : g(sizes),
        tap_(tap(sizes)),
        weights_(weights),
        bias_(biased ? weights + bias_at(sizes) : nullptr) {}

  // How many elements spread() writes at most: with biases.
  static int64_t weights(const FlatSizes& g) { return bias_at(g) + g.m * tap(g); }

  // Repeats weights and biases as vectors read them; `weight(i, j, channel, plane or m)` is a
  // tap's.
  template <class F>
  static void spread(const FlatSizes& g, const T* bias, F&& weight, T* to) {
    for (int64_t copy = 0; copy < g.planes * g.m; ++copy)
      for (int64_t i = 0; i < g.kh; ++i)
        for (int64_t j = 0; j < g.kw; ++j, to += tap(g))
          repeat_channels(g, to, [&](int64_t c) { return weight(i, j, c, copy); });
    if (bias == nullptr) return;
    for (int64_t r = 0; r < g.m; ++r, to += tap(g))
      repeat_channels(g, to, [&](int64_t c) { return bias[c * g.m + r]; });
  }

  // Scratch elements for bands of at most `rows` rows and `columns` columns of an image of S.
  template <class S = T>
  static int64_t scratch(const FlatSizes& g, int64_t rows, int64_t columns) {
    return in_place<S>(g) ? 0 : window(g, 0, rows, 0, columns).elements(g.c, g.planes);
  }

  // Computes rows [p0, p1) and columns [q0, q1) of an image; `out` is where the first output goes.
  template <class S>
  void compute(const S* image, int64_t p0, int64_t p1, int64_t q0, int64_t q1,
               Activation activation, T* out, int64_t out_row, T* scratch) const {
    const FlatWindow w = window(g, p0, p1, q0, q1);
    FlatRun<T> run;
    run.c = g.c;
    run.m = g.m;
    run.planes = g.planes;
    run.taps = g.kw;
    run.activation = activation;
    run.in_tap = g.dw * g.c;
    run.weights_tap = tap_;
    run.weights_row = g.kw * tap_;
    run.weights_m = run.weights_plane = g.kh * g.kw * tap_;
    run.bias = bias_;
    const T* base = scratch;
    int64_t length = w.columns * g.c;
    if (!in_place<S>(g)) {
      fill_window(g, image, w, scratch);
    } else if constexpr (kSame<S, T>) {
      base = image + (w.row * g.in_w + w.column) * g.c;
      length = g.in_w * g.c;
    }
    run.in_plane = w.rows * length;
    run.in_row = g.dh * length;
    for (int64_t p = p0; p < p1; ++p) {
      const Range rows = taps_inside(p * g.sh - g.pt, g.kh, g.dh, g.in_h);
      run.rows = rows.last - rows.first;
      run.in = base + ((p - p0) * g.sh + rows.first * g.dh) * length;
      run.weights = weights_ + rows.first * run.weights_row;
      compute_row(run, (q1 - q0) * g.c, out + (p - p0) * out_row);
    }
  }

 private:
  // Elements of a tap's repeated weights.
  static int64_t tap(const FlatSizes& g) { return g.c + kLanes<T>; }
  static int64_t bias_at(const FlatSizes& g) { return g.planes * g.m * g.kh * g.kw * tap(g); }
  // to[k] = of(k % c) for a tap, without a division each.
  template <class F>
  static void repeat_channels(const FlatSizes& g, T* to, F&& of) {
    for (int64_t c = 0; c < g.c; ++c) to[c] = of(c);
    for (int64_t k = g.c; k < tap(g); ++k) to[k] = to[k - g.c];
  }
  // Whether no tap is to the left or right of the image, so that the image itself can be read.
  template <class S>
  static bool in_place(const FlatSizes& g) {
    return kSame<S, T> && g.planes == 1 && g.pl <= 0 &&
           g.out_w - 1 + (g.kw - 1) * g.dw - g.pl < g.in_w;
  }
  static FlatWindow window(const FlatSizes& g, int64_t p0, int64_t p1, int64_t q0, int64_t q1) {
    return {p0 * g.sh - g.pt, q0 - g.pl, (p1 - 1 - p0) * g.sh + (g.kh - 1) * g.dh + 1,
            q1 - q0 + (g.kw - 1) * g.dw};
  }

  static void compute_row(const FlatRun<T>& run, int64_t length, T* out) {
    if (length < kLanes<T>) {
      flat_short(run, length, out);
      return;
    }
    int64_t r = 0;
    for (; r + 2 <= run.m; r += 2) flat_run_of<T, 2>(run, length, r, out);
    if (r < run.m) flat_run_of<T, 1>(run, length, r, out);
  }

  const FlatSizes g;
  const int64_t tap_;
  const T *const weights_, *const bias_;
};

// --- the kernel's gradient -----------------------------------------------------------------------

// sums[t] += in[e + offset[t]] * dy[e] over a row of `vectors` vectors, `step` apart.
template <class T, int TAPS>
inline void flat_gradient_row(const T* in, const int64_t* offset, const T* dy, int64_t vectors,
                              int64_t step, Vec<T>* sums) {
  Vec<T> acc[TAPS];
#pragma GCC unroll 8
  for (int t = 0; t < TAPS; ++t) acc[t] = sums[t];
  for (int64_t v = 0; v < vectors; ++v) {
    const Vec<T> d = load(dy + v * step);
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; ++t) acc[t] += load(in + offset[t] + v * step) * d;
  }
#pragma GCC unroll 8
  for (int t = 0; t < TAPS; ++t) sums[t] = acc[t];
}

// Scratch elements of add_flat_gradient, which takes bands of at most `rows` rows.
template <class T>
int64_t flat_gradient_scratch(const FlatSizes& g, int64_t rows) {
  const int64_t window = (rows - 1) * g.sh + (g.kh - 1) * g.dh + 1;
  const int64_t columns = g.out_w + (g.kw - 1) * g.dw;
  return window * columns * g.c + kLanes<T> + rows * g.m * round_up(g.out_w * g.c, kLanes<T>);
}

// Adds what the output rows [p0, p1) give to dk [kh, kw, c, m]; `dy` points to the gradient of
// their first output.
template <class S, class T>
void add_flat_gradient(const FlatSizes& g, const S* image, const S* dy, int64_t p0, int64_t p1,
                       T* dk, T* scratch) {
  constexpr int kVec = kLanes<T>, kTaps = 8;
  const FlatWindow w{p0 * g.sh - g.pt, -g.pl, (p1 - 1 - p0) * g.sh + (g.kh - 1) * g.dh + 1,
                     g.out_w + (g.kw - 1) * g.dw};
  fill_window(g, image, w, scratch);
  const int64_t in_row = w.columns * g.c, row = g.out_w * g.c, padded = round_up(row, kVec);
  // Zeros, since the elements after the window are multiplied by the zeros that pad dy.
  fill_zero(scratch + w.elements(g.c, 1), kVec);
  T* const planes = scratch + w.elements(g.c, 1) + kVec;
  for (int64_t p = 0; p < p1 - p0; ++p) {
    T* to = planes + p * g.m * padded;
    separate(dy + p * row * g.m, row, g.m, padded, to);
    for (int64_t r = 0; r < g.m; ++r) fill_zero(to + r * padded + row, padded - row);
  }
  // Vectors `period` elements apart have the same channels in their lanes.
  int64_t period = kVec;
  while (period % g.c != 0) period += kVec;
  const int64_t taps = g.kh * g.kw;
  for (int64_t r = 0; r < g.m; ++r)
    for (int64_t e = 0; e < min_of(period, padded); e += kVec) {
      const int64_t vectors = (padded - kVec - e) / period + 1;
      for (int64_t tap = 0; tap < taps; tap += kTaps) {
        int64_t offset[kTaps];
        for (int t = 0; t < kTaps; ++t) {
          const int64_t here = min_of(tap + t, taps - 1);
          offset[t] = here / g.kw * g.dh * in_row + here % g.kw * g.dw * g.c;
        }
        Vec<T> sums[kTaps] = {};
        for (int64_t p = 0; p < p1 - p0; ++p)
          flat_gradient_row<T, kTaps>(scratch + p * g.sh * in_row + e, offset,
                                      planes + (p * g.m + r) * padded + e, vectors, period, sums);
        for (int t = 0; t < kTaps && tap + t < taps; ++t)
          for (int lane = 0; lane < kVec; ++lane)
            dk[((tap + t) * g.c + (e + lane) % g.c) * g.m + r] += sums[t][lane];
      }
    }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
