// Functions of vectors, an element at a time. Those of float32 are within a few units in the last
// place; those of float64 are the C library's where they are not arithmetic. NaN stays NaN.
#pragma once
#include "activation.h"
#include "lanes.h"

#if defined(__SSE2__)
#include <immintrin.h>  // whose functions are always inlined
#elif defined(__aarch64__)
#include <arm_neon.h>  // likewise
#endif

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class T>
struct IntegerOf {
  using Type = int32_t;
};
template <>
struct IntegerOf<double> {
  using Type = int64_t;
};
template <class T>
using Integers = Vec<typename IntegerOf<T>::Type>;

template <class T>
inline Integers<T> bits_of(Vec<T> v) {
  return reinterpret_cast<Integers<T>>(v);
}
template <class T>
inline Vec<T> from_bits(Integers<T> bits) {
  return reinterpret_cast<Vec<T>>(bits);
}

template <class T>
inline constexpr T kInfinity = static_cast<T>(__builtin_inf());
template <class T>
inline constexpr T kNaN = static_cast<T>(__builtin_nan(""));

// Applies a function of one number to each lane.
template <class T, class F>
inline Vec<T> each_lane(Vec<T> v, const F& f) {
  for (int lane = 0; lane < kLanes<T>; ++lane) v[lane] = f(v[lane]);
  return v;
}

// ---- signs, limits and whole numbers

template <class T>
inline Integers<T> sign_bits() {
  return bits_of<T>(broadcast<T>(T(-0.0)));
}
template <class T>
inline Vec<T> absolute(Vec<T> v) {
  return from_bits<T>(bits_of<T>(v) & ~sign_bits<T>());
}
// A number that is not negative, with the sign of another.
template <class T>
inline Vec<T> with_sign(Vec<T> size, Vec<T> sign) {
  return from_bits<T>(bits_of<T>(size) | (bits_of<T>(sign) & sign_bits<T>()));
}
template <class T>
inline Vec<T> at_most(Vec<T> v, T most) {
  const Vec<T> limit = broadcast(most);
  return v > limit ? limit : v;
}
template <class T>
inline Vec<T> at_least(Vec<T> v, T least) {
  const Vec<T> limit = broadcast(least);
  return v < limit ? limit : v;
}
// NaN where either is.
template <class T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
  return ((a > b) | (a != a)) ? a : b;
}
template <class T>
inline Vec<T> smaller(Vec<T> a, Vec<T> b) {
  return ((a < b) | (a != a)) ? a : b;
}

// To the nearest whole number, half to even. -0 stays.
template <class T>
inline Vec<T> rounded(Vec<T> v) {
  constexpr T kWhole = sizeof(T) == 4 ? T(1 << 23) : T(int64_t{1} << 52);  // whole from here on
  const Vec<T> whole = broadcast(kWhole), size = absolute<T>(v);
  const Vec<T> nearest = (size + whole) - whole;
  return with_sign<T>(size < whole ? nearest : size, v);
}
template <class T>
inline Vec<T> floor_of(Vec<T> v) {
  const Vec<T> nearest = rounded<T>(v), below = nearest - T(1);
  return with_sign<T>(absolute<T>(nearest > v ? below : nearest), v);
}
template <class T>
inline Vec<T> ceiling_of(Vec<T> v) {
  return -floor_of<T>(-v);
}

inline Vec<float> square_root(Vec<float> v) {
#if defined(__AVX512F__)
  return _mm512_maskz_sqrt_ps(static_cast<__mmask16>(-1), v);  // GCC warns of the plain one
#elif defined(__AVX__)
  return _mm256_sqrt_ps(v);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(v);
#elif defined(__aarch64__)
  return reinterpret_cast<Vec<float>>(vsqrtq_f32(reinterpret_cast<float32x4_t>(v)));
#else
  return each_lane<float>(v, [](float x) { return __builtin_sqrtf(x); });
#endif
}
inline Vec<double> square_root(Vec<double> v) {
#if defined(__AVX512F__)
  return _mm512_maskz_sqrt_pd(static_cast<__mmask8>(-1), v);
#elif defined(__AVX__)
  return _mm256_sqrt_pd(v);
#elif defined(__SSE2__)
  return _mm_sqrt_pd(v);
#elif defined(__aarch64__)
  return reinterpret_cast<Vec<double>>(vsqrtq_f64(reinterpret_cast<float64x2_t>(v)));
#else
  return each_lane<double>(v, [](double x) { return __builtin_sqrt(x); });
#endif
}

// ---- exponentials

// v = n log 2 + r, and e^r - 1.
struct ReducedExponent {
  explicit ReducedExponent(Vec<float> v) {
    const Vec<float> round = broadcast(12582912.0F);  // 1.5 * 2^23: its last bits count
    const Vec<float> shifted = v * 1.44269504F + round;
    const Vec<float> whole = shifted - round;
    const Vec<float> r = v - whole * 0.693359375F + whole * 2.12194440e-4F;
    n = bits_of<float>(shifted) - bits_of<float>(round);
    Vec<float> p = broadcast(1.0F / 5040);
    p = p * r + 1.0F / 720;
    p = p * r + 1.0F / 120;
    p = p * r + 1.0F / 24;
    p = p * r + 1.0F / 6;
    p = p * r + 0.5F;
    minus_1 = r + r * (r * p);
  }
  Integers<float> n;
  Vec<float> minus_1;
};

// 2^n for -126 <= n <= 127; 0 for -127.
inline Vec<float> two_to(Integers<float> n) { return from_bits<float>((n + 127) << 23); }

// e^v for any v, infinity and results that are denormal included.
inline Vec<float> exp_of(Vec<float> v) {
  const ReducedExponent e(at_least(at_most(v, 89.0F), -104.0F));
  const Integers<float> half = e.n >> 1;
  return (e.minus_1 + 1.0F) * two_to(half) * two_to(e.n - half);
}
inline Vec<double> exp_of(Vec<double> v) { return exponential(v); }

// e^v - 1 for v <= 88.
inline Vec<float> exp_minus_1(Vec<float> v) {
  const ReducedExponent e(at_least(v, -88.0F));
  const Vec<float> power = two_to(e.n);
  return power * e.minus_1 + (power - 1.0F);
}
inline Vec<double> exp_minus_1(Vec<double> v) {
  return each_lane<double>(v, [](double x) { return __builtin_expm1(x); });
}

// 1 / (1 + e^-v); 0 where that is less than the least normal number.
template <class T>
inline Vec<T> sigmoid_of(Vec<T> v) {
  constexpr T kMost = sizeof(T) == 4 ? 87 : 708;
  const Vec<T> near = at_least(at_most(v, kMost), -kMost);
  return v < broadcast(-kMost) ? zero<T>() : T(1) / (T(1) + exponential(-near));
}

// v * factor, where a factor of 0 stands for more than 0: 0, also of -infinity.
template <class T>
inline Vec<T> gated(Vec<T> v, Vec<T> factor) {
  return factor == zero<T>() ? zero<T>() : v * factor;
}

inline Vec<float> tanh_of(Vec<float> v) {
  const Vec<float> e = exp_minus_1(at_most(absolute<float>(v), 10.0F) * 2.0F);
  return with_sign<float>(e / (e + 2.0F), v);
}
inline Vec<double> tanh_of(Vec<double> v) {
  return each_lane<double>(v, [](double x) { return __builtin_tanh(x); });
}

// ---- logarithms

inline Vec<float> log_of(Vec<float> v) {
  const Vec<float> nothing = zero<float>();
  const Integers<float> small = v < broadcast(1.17549435e-38F);  // denormal
  const Integers<float> bits = bits_of<float>(absolute<float>(small ? v * 33554432.0F : v));
  // v = 2^n m, with m from sqrt(1/2) to sqrt(2).
  const Integers<float> n = (bits - 0x3f3504f3) >> 23;
  const Vec<float> f = from_bits<float>(bits - (n << 23)) - 1.0F;
  const Vec<float> power = __builtin_convertvector(n + (small & -25), Vec<float>);
  Vec<float> p = broadcast(7.0376836292e-2F);
  p = p * f - 1.1514610310e-1F;
  p = p * f + 1.1676998740e-1F;
  p = p * f - 1.2420140846e-1F;
  p = p * f + 1.4249322787e-1F;
  p = p * f - 1.6668057665e-1F;
  p = p * f + 2.0000714765e-1F;
  p = p * f - 2.4999993993e-1F;
  p = p * f + 3.3333331174e-1F;
  const Vec<float> square = f * f;
  Vec<float> y = p * f * square;
  y = y - power * 2.12194440e-4F;
  y = y - square * 0.5F;
  y = (f + y) + power * 0.693359375F;
  y = v > nothing ? y : (v == nothing ? broadcast(-kInfinity<float>) : broadcast(kNaN<float>));
  return v == broadcast(kInfinity<float>) ? v : y;
}
inline Vec<double> log_of(Vec<double> v) {
  return each_lane<double>(v, [](double x) { return __builtin_log(x); });
}

// log(1 + v) for 0 <= v <= 1.
inline Vec<float> log_of_1_plus(Vec<float> v) {
  const Vec<float> sum = v + 1.0F;
  return log_of(sum) + (v - (sum - 1.0F)) / sum;
}
inline Vec<double> log_of_1_plus(Vec<double> v) {
  return each_lane<double>(v, [](double x) { return __builtin_log1p(x); });
}

// log(1 + e^v)
template <class T>
inline Vec<T> softplus_of(Vec<T> v) {
  return at_least(v, T(0)) + log_of_1_plus(exp_of(-absolute<T>(v)));
}

// ---- the error function

// What erf is where |v| is less than kErrorNear, and there its logarithm's complement: log(1 - erf)
// of a positive number.
inline constexpr float kErrorNear = 0.927734375F;
inline Vec<float> erf_near(Vec<float> v) {
  const Vec<float> s = v * v;
  Vec<float> p = broadcast(-5.96761703e-4F);
  p = p * s + 4.99119423e-3F;
  p = p * s - 2.67681349e-2F;
  p = p * s + 1.12819925e-1F;
  p = p * s - 3.76125336e-1F;
  p = p * s + 1.28379166e-1F;
  return p * v + v;
}
inline Vec<float> log_erfc_far(Vec<float> size) {
  const Vec<float> s = size * size;
  Vec<float> p = size * -1.72853470e-5F + 3.83197126e-4F;
  const Vec<float> q = size * -3.88396438e-3F + 2.42546219e-2F;
  p = p * s + q;
  p = p * size - 1.06777877e-1F;
  p = p * size - 6.34846687e-1F;
  p = p * size - 1.28717512e-1F;
  p = p * size - size;
  return p;
}
// Beyond 10 it is 1 to the last place, and 1 - erf is less than the least number.
inline Vec<float> erfc_far(Vec<float> size) { return exp_of(log_erfc_far(at_most(size, 10.0F))); }

inline Vec<float> erf_of(Vec<float> v) {
  const Vec<float> size = absolute<float>(v);
  const Vec<float> far = with_sign<float>(1.0F - erfc_far(size), v);
  return size > broadcast(kErrorNear) ? far : erf_near(v);
}
inline Vec<double> erf_of(Vec<double> v) {
  return each_lane<double>(v, [](double x) { return __builtin_erf(x); });
}

// 1 + erf(v), without loss of digits where erf is nearly -1.
inline Vec<float> one_plus_erf(Vec<float> v) {
  const Vec<float> size = absolute<float>(v), tail = erfc_far(size);
  const Vec<float> far = v < zero<float>() ? tail : 2.0F - tail;
  return size > broadcast(kErrorNear) ? far : 1.0F + erf_near(v);
}
inline Vec<double> one_plus_erf(Vec<double> v) {
  return each_lane<double>(v, [](double x) { return __builtin_erfc(-x); });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
