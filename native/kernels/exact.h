// Plain loops for a depthwise convolution where a weight, or an element of a kernel's gradient, is
// infinite or NaN.
//
// Padding has no part in a convolution. The fast kernels still multiply it where that is quicker,
// with zeros in its place; they also multiply zeros in the gaps between the rows of a plane. That
// is right for finite numbers, but zero times infinity is NaN. Weights that are not finite are
// therefore looked for before a kernel runs (there are few of them beside pixels), wrong NaN in a
// kernel's gradient afterwards, and these loops do the work instead. They end a sum as soon as it
// is NaN, so that training that has gone wrong is not slow as well.
#pragma once
#include "../operation.h"
#include "activation.h"
#include "half.h"
#include "parallel.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Whether all values are finite: times zero, others are NaN.
template <class T>
bool all_finite(const T* p, int64_t count) {
  constexpr int kChains = 8;  // so that no addition waits for the one before it
  Vec<T> zeros[kChains] = {};
  int64_t i = 0;
  for (; i + kChains * kLanes<T> <= count; i += kChains * kLanes<T>)
#pragma GCC unroll 8
    for (int v = 0; v < kChains; ++v) zeros[v] += load(p + i + v * kLanes<T>) * zero<T>();
  for (; i + kLanes<T> <= count; i += kLanes<T>) zeros[0] += load(p + i) * zero<T>();
  for (int v = 1; v < kChains; ++v) zeros[0] += zeros[v];
  T total = sum<T>(zeros[0]);
  for (; i < count; ++i) total += p[i] * T(0);
  return total == T(0);
}

// Element (h, w) of channel c of image n of a tensor.
template <class T>
struct Tensor {
  T* data;
  int64_t h, w, channels;
  bool channels_first;
  T& at(int64_t n, int64_t row, int64_t column, int64_t c) const {
    return channels_first ? data[((n * channels + c) * h + row) * w + column]
                          : data[((n * h + row) * w + column) * channels + c];
  }
};

template <class T>
Tensor<T> input_tensor(const Geometry& g, T* data) {
  return {data, g.h, g.w, g.c, g.channels_first};
}

template <class T>
Tensor<T> output_tensor(const Geometry& g, T* data) {
  return {data, g.ho, g.wo, g.c * g.m, g.channels_first};
}

// Tensors are of S, weights and sums of Real<S>.
template <class S>
void exact_forward(const Geometry& g, const S* x, const Real<S>* kernel, const Real<S>* bias,
                   Activation activation, S* y, Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m;
  const Tensor<const S> in = input_tensor(g, x);
  const Tensor<S> out = output_tensor(g, y);
  parallel<T>(runner, g.n * channels, 0, [&](int64_t task, T*) {
    const int64_t o = task % channels, n = task / channels;
    for (int64_t p = 0; p < g.ho; ++p)
      for (int64_t q = 0; q < g.wo; ++q) {
        const int64_t h = p * g.sh - g.pt, w = q * g.sw - g.pl;
        const Range rows = taps_inside(h, g.kh, g.dh, g.h);
        const Range columns = taps_inside(w, g.kw, g.dw, g.w);
        T total = bias == nullptr ? T(0) : bias[o];
        for (int64_t i = rows.first; i < rows.last && total == total; ++i)
          for (int64_t j = columns.first; j < columns.last; ++j)
            total += real(in.at(n, h + i * g.dh, w + j * g.dw, o / g.m)) *
                     kernel[(i * g.kw + j) * channels + o];
        total = activate_scalar(total, early(activation));
        if (is_late(activation)) activate_late(&total, 1, 1, 1, activation);
        out.at(n, p, q, o) = rounded_to<S>(total);
      }
  });
}

template <class S>
void exact_input_gradient(const Geometry& g, const S* dy, const Real<S>* kernel, S* dx,
                          Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m;
  const Tensor<S> to = input_tensor(g, dx);
  const Tensor<const S> from = output_tensor(g, dy);
  parallel<T>(runner, g.n * g.c, 0, [&](int64_t task, T*) {
    const int64_t c = task % g.c, n = task / g.c;
    for (int64_t h = 0; h < g.h; ++h)
      for (int64_t w = 0; w < g.w; ++w) {
        T total = 0;
        for (int64_t i = 0; i < g.kh && total == total; ++i) {
          const int64_t row = h + g.pt - i * g.dh;
          if (row < 0 || row % g.sh != 0 || row / g.sh >= g.ho) continue;
          for (int64_t j = 0; j < g.kw; ++j) {
            const int64_t column = w + g.pl - j * g.dw;
            if (column < 0 || column % g.sw != 0 || column / g.sw >= g.wo) continue;
            for (int64_t o = c * g.m; o < (c + 1) * g.m; ++o)
              total += real(from.at(n, row / g.sh, column / g.sw, o)) *
                       kernel[(i * g.kw + j) * channels + o];
          }
        }
        to.at(n, h, w, c) = rounded_to<S>(total);
      }
  });
}

// Recomputes the elements of a kernel's gradient that are NaN.
template <class S>
void mend_kernel_gradient(const Geometry& g, const S* x, const S* dy, Real<S>* dk, Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m, taps = g.kh * g.kw;
  if (all_finite(dk, taps * channels)) return;
  const Tensor<const S> in = input_tensor(g, x), from = output_tensor(g, dy);
  parallel<T>(runner, taps * channels, 0, [&](int64_t task, T*) {
    if (dk[task] == dk[task]) return;
    const int64_t o = task % channels, tap = task / channels;
    const int64_t i = tap / g.kw, j = tap % g.kw;
    T total = 0;
    for (int64_t n = 0; n < g.n; ++n)
      for (int64_t p = 0; p < g.ho && total == total; ++p) {
        const int64_t h = p * g.sh + i * g.dh - g.pt;
        if (h < 0 || h >= g.h) continue;
        for (int64_t q = 0; q < g.wo; ++q) {
          const int64_t w = q * g.sw + j * g.dw - g.pl;
          if (w >= 0 && w < g.w) total += real(in.at(n, h, w, o / g.m)) * real(from.at(n, p, q, o));
        }
      }
    dk[task] = total;
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
