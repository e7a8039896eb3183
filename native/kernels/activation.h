// The activations that follow a convolution. Those that cost an instruction or two are applied to
// sums in registers. The others ("late" ones) are applied to stored results while those are in the
// first cache, so that they take no registers from the kernels.
#pragma once
#include "../operation.h"
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

inline constexpr bool is_late(Activation activation) { return activation > Activation::relu6; }

// The activation to apply in registers: none for a late one.
inline constexpr Activation early(Activation activation) {
  return is_late(activation) ? Activation::none : activation;
}

// The comparisons are written so that NaN stays NaN.
template <class T>
inline Vec<T> activate(Vec<T> v, Activation activation) {
  if (activation == Activation::none) return v;
  const Vec<T> nothing = zero<T>();
  v = v < nothing ? nothing : v;
  if (activation == Activation::relu6) {
    const Vec<T> six = broadcast<T>(6);
    v = v > six ? six : v;
  }
  return v;
}

template <class T>
inline T activate_scalar(T v, Activation activation) {
  if (activation == Activation::none) return v;
  if (v < 0) v = 0;
  if (activation == Activation::relu6 && v > 6) v = 6;
  return v;
}

// e^v for |v| <= 88, within two units in the last place: v = n log 2 + r, and e^r is a polynomial.
inline Vec<float> exponential(Vec<float> v) {
  typedef int Integers __attribute__((vector_size(SEPCONV_VECTOR_BYTES)));
  const Vec<float> round = broadcast(12582912.0f);  // 1.5 * 2^23: its last bits count whole numbers
  const Vec<float> shifted = v * 1.44269504f + round;
  const Vec<float> n = shifted - round;
  const Vec<float> r = v - n * 0.693359375f + n * 2.12194440e-4f;  // log 2 in two parts
  Vec<float> p = broadcast(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return reinterpret_cast<Vec<float>>(reinterpret_cast<Integers>(p) +
                                      (reinterpret_cast<Integers>(shifted) << 23));
}

inline Vec<double> exponential(Vec<double> v) {
  for (int lane = 0; lane < kLanes<double>; ++lane) v[lane] = __builtin_exp(v[lane]);
  return v;
}

template <class T>
inline Vec<T> late_activation(Vec<T> v, Activation activation) {
  const Vec<T> nothing = zero<T>();
  if (activation == Activation::hard_silu) {
    const Vec<T> gate = activate<T>(v + T(3), Activation::relu6);
    return v * gate * T(1.0 / 6);
  }
  // silu: v / (1 + e^-v). Beyond 88 either way a float's sigmoid is 0 or 1.
  const Vec<T> most = broadcast<T>(88);
  Vec<T> minus = -v;
  minus = minus > most ? most : minus;
  minus = minus < -most ? -most : minus;
  const Vec<T> sigmoid = T(1) / (T(1) + exponential(minus));
  return v * (v < -most ? nothing : sigmoid);
}

// Applies a late activation in place.
template <class T>
void activate_late(T* p, int64_t count, Activation activation) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>)
    store(p + i, late_activation<T>(load(p + i), activation));
  if (i == count) return;
  T rest[kLanes<T>] = {};
  for (int64_t k = i; k < count; ++k) rest[k - i] = p[k];
  const Vec<T> done = late_activation<T>(load(rest), activation);
  for (int64_t k = i; k < count; ++k) p[k] = done[static_cast<int>(k - i)];
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
