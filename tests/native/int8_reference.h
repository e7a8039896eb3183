// What int8 operations compute, in plain loops over int64, to be read. See quantized_operation.h.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "../../native/quantized_operation.h"

namespace test {

// A float32 in a value's units as its byte.
inline uint8_t rounded(float t, int zero_point, int lower, int upper) {
  const float whole = std::nearbyint(t);  // half to even
  const float least = static_cast<float>(lower - zero_point);
  const float most = static_cast<float>(upper - zero_point);
  const float bounded = whole < least ? least : whole > most ? most : whole;
  return static_cast<uint8_t>(static_cast<int>(bounded) + zero_point);
}

// Every operation of float32 by itself, whatever the compiler may contract.
inline float times(float a, float b) {
  const volatile float product = a * b;
  return product;
}
inline float plus(float a, float b) {
  const volatile float sum = a + b;
  return sum;
}

// A sum with its bias, times its scale.
inline float scaled(int64_t sum, const sepconv::Requantize& to, int64_t channel) {
  const int64_t bias = to.bias == nullptr ? 0 : to.bias[channel];
  return times(static_cast<float>(static_cast<int32_t>(sum + bias)), to.scale[channel]);
}

inline uint8_t requantized(int64_t sum, const sepconv::Requantize& to, int64_t channel,
                           float added = 0) {
  const float t = scaled(sum, to, channel);
  const uint8_t q = rounded(plus(t, added), to.zero_point, to.lower, to.upper);
  return to.table == nullptr ? q : to.table[q];
}

// Where pixel (h, w) of channel c is, in an image of `channels` channels.
inline size_t at(const sepconv::Geometry& g, int64_t n, int64_t h, int64_t w, int64_t c,
                 int64_t height, int64_t width, int64_t channels) {
  return static_cast<size_t>(g.channels_first ? ((n * channels + c) * height + h) * width + w
                                              : ((n * height + h) * width + w) * channels + c);
}

// Calls f(tap, x) for what the output (p, q) sees inside the image of channel c.
template <class F>
void each_tap(const sepconv::Geometry& g, const uint8_t* x, int64_t n, int64_t p, int64_t q,
              int64_t c, const F& f) {
  for (int64_t i = 0; i < g.kh; ++i)
    for (int64_t j = 0; j < g.kw; ++j) {
      const int64_t h = p * g.sh - g.pt + i * g.dh, w = q * g.sw - g.pl + j * g.dw;
      if (h >= 0 && h < g.h && w >= 0 && w < g.w)
        f(i * g.kw + j, x[at(g, n, h, w, c, g.h, g.w, g.c)]);
    }
}

// Y: uint8_t, or float for sums that are rounded to no byte, where channels are mixed.
template <class Y>
std::vector<Y> convolve(const sepconv::Geometry& g, const sepconv::QuantizedWeights& w,
                        const uint8_t* x, const uint8_t* residual) {
  const int64_t outputs = w.outputs(), middle = w.middle();
  std::vector<Y> y(static_cast<size_t>(g.n * g.ho * g.wo * outputs));
  std::vector<int64_t> between(static_cast<size_t>(middle));
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t p = 0; p < g.ho; ++p)
      for (int64_t q = 0; q < g.wo; ++q) {
        for (int64_t c = 0; w.is_depthwise() && c < middle; ++c) {
          int64_t sum = 0;
          each_tap(g, x, n, p, q, c / g.m, [&](int64_t tap, int64_t value) {
            sum += (value - w.input_zero_point) * w.depthwise_kernel[tap * middle + c];
          });
          const uint8_t byte = requantized(sum, w.depthwise, c);
          between[static_cast<size_t>(c)] = byte - w.depthwise.zero_point;
          if (!w.mixes()) y[at(g, n, p, q, c, g.ho, g.wo, outputs)] = byte;
        }
        for (int64_t f = 0; f < w.filters; ++f) {
          int64_t sum = 0;
          if (w.is_depthwise())
            for (int64_t c = 0; c < middle; ++c)
              sum += between[static_cast<size_t>(c)] * w.pointwise_kernel[c * w.filters + f];
          else
            for (int64_t c = 0; c < g.c; ++c)
              each_tap(g, x, n, p, q, c, [&](int64_t tap, int64_t value) {
                sum += (value - w.input_zero_point) *
                       w.pointwise_kernel[(tap * g.c + c) * w.filters + f];
              });
          const size_t to = at(g, n, p, q, f, g.ho, g.wo, outputs);
          if constexpr (sizeof(Y) == sizeof(float)) {
            y[to] = scaled(sum, w.output, f);
            continue;
          }
          const float added = residual == nullptr
                                  ? 0
                                  : times(static_cast<float>(residual[to] - w.residual_zero_point),
                                          w.residual_scale);
          y[to] = requantized(sum, w.output, f, added);
        }
      }
  return y;
}

}  // namespace test
