// The convolutions and their gradients as plain loops in float64, and how far a kernel's results
// may be from them.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "problem.h"

namespace test {

// A sum of products, and the sum of their sizes, which bounds what rounding can have done to it;
// `slack` is what its operands may differ by, if they were rounded.
struct Sum {
  double value = 0, size = 0, slack = 0;
  void add(const Sum& a, const Sum& b) {
    value += a.value * b.value;
    size += a.size * b.size;
    slack += a.slack * b.size + a.size * b.slack;
  }
};

template <class T>
Sum exact(T v) {
  return {static_cast<double>(v), std::fabs(static_cast<double>(v))};
}

using Sums = std::vector<Sum>;

// Where pixel (h, w) of channel c of image n is.
inline size_t at(bool channels_first, int64_t n, int64_t h, int64_t w, int64_t c, int64_t height,
                 int64_t width, int64_t channels) {
  return static_cast<size_t>(channels_first ? ((n * channels + c) * height + h) * width + w
                                            : ((n * height + h) * width + w) * channels + c);
}

// Calls f(x, k, y) for every tap on the image of every output: indices into x, the depthwise kernel
// and the depthwise result. Padding takes no part.
template <class F>
void for_each_tap(const sepconv::Geometry& g, F&& f) {
  const int64_t channels = g.c * g.m;
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t p = 0; p < g.ho; ++p)
      for (int64_t q = 0; q < g.wo; ++q)
        for (int64_t i = 0; i < g.kh; ++i)
          for (int64_t j = 0; j < g.kw; ++j) {
            const int64_t h = p * g.sh + i * g.dh - g.pt, w = q * g.sw + j * g.dw - g.pl;
            if (h < 0 || h >= g.h || w < 0 || w >= g.w) continue;
            for (int64_t c = 0; c < channels; ++c)
              f(at(g.channels_first, n, h, w, c / g.m, g.h, g.w, g.c),
                static_cast<size_t>((i * g.kw + j) * channels + c),
                at(g.channels_first, n, p, q, c, g.ho, g.wo, channels));
          }
}

// Calls f(element, channel) for every element of a tensor of outputs with `channels` channels.
template <class F>
void for_each_channel(const sepconv::Geometry& g, int64_t channels, F&& f) {
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t p = 0; p < g.ho; ++p)
      for (int64_t q = 0; q < g.wo; ++q)
        for (int64_t c = 0; c < channels; ++c)
          f(at(g.channels_first, n, p, q, c, g.ho, g.wo, channels), static_cast<size_t>(c));
}

// Calls f(middle, weight, y) for every product of the 1x1 convolution.
template <class F>
void for_each_mix(const Problem& p, F&& f) {
  const auto& g = p.g;
  const int64_t channels = p.depthwise_channels();
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t row = 0; row < g.ho; ++row)
      for (int64_t q = 0; q < g.wo; ++q)
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t o = 0; o < p.filters; ++o)
            f(at(g.channels_first, n, row, q, c, g.ho, g.wo, channels),
              static_cast<size_t>(c * p.filters + o),
              at(g.channels_first, n, row, q, o, g.ho, g.wo, p.filters));
}

template <class T>
Sums exact_all(const std::vector<T>& values) {
  Sums out;
  for (const T v : values) out.push_back(exact(v));
  return out;
}

struct Expected {
  Sums y, dx, ddepthwise, dpointwise, dbias;
};

inline void activate(Sum& sum, sepconv::Activation activation) {
  double& v = sum.value;
  switch (activation) {
    case sepconv::Activation::none:
      return;
    case sepconv::Activation::relu:
      v = v < 0 ? 0 : v;
      break;
    case sepconv::Activation::relu6:
      v = v < 0 ? 0 : v > 6 ? 6 : v;
      break;
    case sepconv::Activation::hard_silu:
      v *= (v < -3 ? 0 : v > 3 ? 6 : v + 3) / 6;
      break;
    case sepconv::Activation::silu:
      v = v / (1 + std::exp(-v));
      break;
  }
  // The slope is at most 1.5; what was infinite may be a number now.
  const bool finite = std::isfinite(sum.size);
  sum.size = finite ? 1.5 * sum.size : std::fabs(v);
  sum.slack = finite ? 1.5 * sum.slack : 0;
}

// Rounds a sum of `terms` products to a type. A kernel has rounded a sum that is not quite this.
template <class T>
void round_between(Sum& sum, double terms) {
  if (Rounding<T>::stored == 0) return;
  const double unit = Rounding<T>::unit * (8 + 4 * std::sqrt(terms));
  const double most = std::fabs(sum.value) + unit * sum.size;
  if (std::isfinite(most)) sum.slack += 2 * Rounding<T>::stored * most + 2 * Rounding<T>::least;
  sum.value = static_cast<double>(T(sum.value));
}

// The numbers of a call; those that a problem has not are empty.
template <class T>
struct Inputs {
  std::vector<T> x, kernel, pointwise, bias, dy, depthwise_bias, residual;
};

// What is between the two steps is rounded as T, but not for the product alone, which has one step.
template <class T>
Expected expected_results(const Problem& p, const Inputs<T>& in, bool product = false) {
  const Sums xs = exact_all(in.x), ks = exact_all(in.kernel), ps = exact_all(in.pointwise);
  const Sums dys = exact_all(in.dy);
  const auto& g = p.g;
  Expected e;
  Sums middle(static_cast<size_t>(g.n * g.ho * g.wo * p.depthwise_channels()));
  for_each_tap(g, [&](size_t a, size_t k, size_t b) { middle[b].add(xs[a], ks[k]); });
  const auto round_all = [&](Sums& sums, int64_t terms) {
    if (product) return;
    for (Sum& sum : sums) round_between<T>(sum, static_cast<double>(terms));
  };
  Sums dmiddle(middle.size());
  const Sum one{1, 1};
  if (p.separable) {
    Sums between = middle;
    for_each_channel(g, p.depthwise_channels(), [&](size_t i, size_t c) {
      if (p.depthwise_bias) between[i].add(exact(in.depthwise_bias[c]), one);
      activate(between[i], p.depthwise_activation);
    });
    round_all(between, g.kh * g.kw);
    round_all(middle, g.kh * g.kw);
    e.y.resize(dys.size());
    e.dpointwise.resize(ps.size());
    for_each_mix(p, [&](size_t a, size_t k, size_t b) {
      e.y[b].add(between[a], ps[k]);
      e.dpointwise[k].add(middle[a], dys[b]);
      dmiddle[a].add(dys[b], ps[k]);
    });
    round_all(dmiddle, p.filters);
  } else {
    e.y = middle;
    dmiddle = dys;
  }
  e.dx.resize(xs.size());
  e.ddepthwise.resize(ks.size());
  for_each_tap(g, [&](size_t a, size_t k, size_t b) {
    e.dx[a].add(dmiddle[b], ks[k]);
    e.ddepthwise[k].add(xs[a], dmiddle[b]);
  });
  e.dbias.resize(static_cast<size_t>(p.outputs()));
  for_each_channel(g, p.outputs(), [&](size_t i, size_t o) {
    e.dbias[o].add(dys[i], one);
    if (p.bias) e.y[i].add(exact(in.bias[o]), one);
    if (p.residual) e.y[i].add(exact(in.residual[i]), one);
    activate(e.y[i], p.activation);
  });
  return e;
}

// Whether every value is as near as the rounding of `terms` products allows, and not a number or
// infinite exactly where the sum is.
template <class T>
bool near(const T* values, const Sums& sums, double terms) {
  const double unit = Rounding<T>::unit * (8 + 4 * std::sqrt(terms));
  for (size_t i = 0; i < sums.size(); ++i) {
    const double v = static_cast<double>(values[i]);
    const bool right =
        std::isnan(sums[i].value) ? std::isnan(v)
        : std::isinf(sums[i].value)
            ? v == sums[i].value
            : std::fabs(v - sums[i].value) <=
                  unit * sums[i].size + sums[i].slack + Rounding<T>::least +
                      Rounding<T>::stored * (std::fabs(sums[i].value) + unit * sums[i].size);
    if (!right) return false;
  }
  return true;
}

}  // namespace test
