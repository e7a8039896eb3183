// The activations that follow a convolution. Those that cost an instruction or two are applied to
// sums in registers. The others ("late" ones) are applied to stored results while those are in the
// first cache, so that they take no registers from the kernels; but a product computes hard SiLU in
// registers (gemm_epilogue.h).
#pragma once
#include "../operation.h"
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

inline constexpr bool is_late(Activation activation) { return activation > Activation::relu6; }

// The activation to apply in registers: none for a late one.
inline constexpr Activation early(Activation activation) {
  return is_late(activation) ? Activation::none : activation;
}

// v where it is not below (not above) the other, else the other. NaN stays NaN, and -0 is not below
// 0. On x86 that is one instruction, whose second operand is the result where one of both is NaN or
// where they are equal; GCC makes two of the comparison.
template <class T>
inline Vec<T> not_below(Vec<T> v, Vec<T> least) {
  return v < least ? least : v;
}
template <class T>
inline Vec<T> not_above(Vec<T> v, Vec<T> most) {
  return v > most ? most : v;
}
#if defined(__AVX512F__)
// With this mask, since GCC 12 warns of uninitialized lanes without any.
inline constexpr __mmask16 kAllLanes = 0xFFFF;

template <>
inline Vec<float> not_below<float>(Vec<float> v, Vec<float> least) {
  return _mm512_maskz_max_ps(kAllLanes, least, v);
}
template <>
inline Vec<float> not_above<float>(Vec<float> v, Vec<float> most) {
  return _mm512_maskz_min_ps(kAllLanes, most, v);
}
#elif defined(__AVX2__)
template <>
inline Vec<float> not_below<float>(Vec<float> v, Vec<float> least) {
  return _mm256_max_ps(least, v);
}
template <>
inline Vec<float> not_above<float>(Vec<float> v, Vec<float> most) {
  return _mm256_min_ps(most, v);
}
#endif

template <class T>
inline Vec<T> activate(Vec<T> v, Activation activation) {
  if (activation == Activation::none) return v;
  v = not_below<T>(v, zero<T>());
  if (activation == Activation::relu6) v = not_above<T>(v, broadcast<T>(6));
  return v;
}

template <class T>
inline T activate_scalar(T v, Activation activation) {
  if (activation == Activation::none) return v;
  if (v < 0) v = 0;
  if (activation == Activation::relu6 && v > 6) v = 6;
  return v;
}

// v where it is between the two, else the nearer of them; NaN stays NaN.
template <class T>
inline Vec<T> between(Vec<T> v, T least, T most) {
  return not_below<T>(not_above<T>(v, broadcast(most)), broadcast(least));
}

// e^v for |v| <= 88, within two units in the last place: v = n log 2 + r, and e^r is a polynomial,
// the best one of its degree (3e-9) that begins with 1 + r.
inline Vec<float> exponential(Vec<float> v) {
#if defined(__AVX512F__)
  const Vec<float> n =
      _mm512_maskz_roundscale_ps(kAllLanes, v * 1.44269504f, _MM_FROUND_TO_NEAREST_INT);
#else
  const Vec<float> round = broadcast(12582912.0f);  // 1.5 * 2^23: its last bits count whole numbers
  const Vec<float> shifted = v * 1.44269504f + round;
  const Vec<float> n = shifted - round;
#endif
  const Vec<float> r = v - n * 0.693359375f + n * 2.12194440e-4f;  // log 2 in two parts
  Vec<float> p = broadcast(1.381454e-3f);
  p = p * r + 8.368745e-3f;
  p = p * r + 4.166839e-2f;
  p = p * r + 1.6666521e-1f;
  p = p * r + 4.9999994e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
#if defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(kAllLanes, p, n);
#else
  typedef int Integers __attribute__((vector_size(SEPCONV_VECTOR_BYTES)));
  return reinterpret_cast<Vec<float> >(reinterpret_cast<Integers>(p) +
                                       (reinterpret_cast<Integers>(shifted) << 23));
#endif
}

inline Vec<double> exponential(Vec<double> v) {
  for (int lane = 0; lane < kLanes<double>; ++lane) v[lane] = __builtin_exp(v[lane]);
  return v;
}

// v / (1 + e^-v), within four units in the last place. Beyond 88 either way a float's sigmoid is 0
// or 1.
template <class T>
inline Vec<T> silu(Vec<T> v) {
  const T most = 88;
  const Vec<T> whole = T(1) + exponential(between<T>(-v, -most, most));
  return (v < broadcast(-most) ? v * zero<T>() : v) / whole;
}
#if !defined(__AVX512F__)
// e^-v = 2^n e^r, as in exponential(), with a polynomial of one degree less (1e-7). Far below 0, n
// is 128, 2^n infinite and the result 0; far above, n is -127, 2^n is 0 and the result v.
template <>
inline Vec<float> silu<float>(Vec<float> v) {
  typedef int Integers __attribute__((vector_size(SEPCONV_VECTOR_BYTES)));
  const Vec<float> near = between<float>(v, -89, 88);
  // 1.5 * 2^23 and what an exponent's bits are for 2^0: its last bits are those of 2^n.
  const Vec<float> round = broadcast(12582912.0f + 127);
  const Vec<float> shifted = near * -1.44269504f + round;
  const Vec<float> n = shifted - round;
  const Vec<float> r = -(n * 0.693359375f + near) + n * 2.12194440e-4f;  // log 2 in two parts
  Vec<float> p = broadcast(8.29027e-3f);
  p = p * r + 4.189816e-2f;
  p = p * r + 1.6667638e-1f;
  p = p * r + 4.9999148e-1f;
  p = p * r + 9.9999971e-1f;
  p = p * r + 1.0f;
  return v / (p * reinterpret_cast<Vec<float> >(reinterpret_cast<Integers>(shifted) << 23) + 1.0f);
}
#else
// The fractions of e^-v = 2^n e^r, where n is a multiple of 1/16: one register holds them all, and
// a polynomial of degree 3 does for e^r.
alignas(64) inline constexpr float kSixteenthPowers[16] = {
    1.0f,        1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f,
    1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f,
    1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f};

template <>
inline Vec<float> silu<float>(Vec<float> v) {
  const Vec<float> near = between<float>(v, -100, 100);  // e^100 is infinite, and v / it is 0
  const Vec<float> round = broadcast(786432.0f);  // 1.5 * 2^19: its last bits count sixteenths
  const Vec<float> shifted = near * -1.44269504f + round;
  const Vec<float> n = shifted - round;
  const Vec<float> r = -near - n * 0.693359375f + n * 2.12194440e-4f;  // log 2 in two parts
  Vec<float> p = broadcast(1.0f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  // Of each lane the instruction looks at the last four bits.
  const Vec<float> fraction = _mm512_maskz_permutexvar_ps(
      kAllLanes, reinterpret_cast<__m512i>(shifted), load(kSixteenthPowers));
  return v /
         (1.0f + Vec<float>(_mm512_maskz_scalef_ps(kAllLanes, fraction * (p * r) + fraction, n)));
}
#endif

template <class T>
inline Vec<T> hard_silu(Vec<T> v) {
  const Vec<T> gate = activate<T>(v + T(3), Activation::relu6);
  return v * gate * T(1.0 / 6);
}

// Any activation, late or not.
template <class T>
inline Vec<T> activate_fully(Vec<T> v, Activation activation) {
  if (activation == Activation::silu) return silu<T>(v);
  if (activation == Activation::hard_silu) return hard_silu<T>(v);
  return activate<T>(v, activation);
}

// An activation that is not late, of sums in registers: each(f) calls f(sum, i, j) for all of them.
// The choice is made once, not for every sum.
template <class T, class Each>
[[gnu::always_inline]] inline void activate_each(Activation activation, const Each& each) {
  if (activation != Activation::none)
    each([](Vec<T>& sum, int, int) { sum = not_below<T>(sum, zero<T>()); });
  if (activation == Activation::relu6)
    each([](Vec<T>& sum, int, int) { sum = not_above<T>(sum, broadcast<T>(6)); });
}

// Applies a late activation in place: to `rows` rows of `count` numbers each, `step` apart.
template <class T>
[[gnu::noinline]] void activate_late(T* p, int64_t rows, int64_t step, int64_t count,
                                     Activation activation) {
  constexpr int64_t kVec = kLanes<T>;
  const int64_t whole = count / kVec * kVec;
  const auto all = [=](auto apply) __attribute__((always_inline)) {
    T* row = p;
    if (count == 2 * kVec) {  // a tile of a product
      for (int64_t r = 0; r < rows; ++r, row += step) {
        const Vec<T> one = apply(load(row)), other = apply(load(row + kVec));
        store(row, one);
        store(row + kVec, other);
      }
      return;
    }
    for (int64_t r = 0; r < rows; ++r, row += step) {
      int64_t i = 0;
      // Two at a time, which do not wait for each other.
      for (; i + 2 * kVec <= whole; i += 2 * kVec) {
        const Vec<T> one = apply(load(row + i)), other = apply(load(row + i + kVec));
        store(row + i, one);
        store(row + i + kVec, other);
      }
      if (i < whole) store(row + i, apply(load(row + i)));
      if (whole == count) continue;
      T rest[kVec] = {};
      for (int64_t k = whole; k < count; ++k) rest[k - whole] = row[k];
      const Vec<T> done = apply(load(rest));
      for (int64_t k = whole; k < count; ++k) row[k] = done[static_cast<int>(k - whole)];
    }
  };
  if (activation == Activation::silu)
    all([](Vec<T> v) __attribute__((always_inline)) { return silu<T>(v); });
  else
    all([](Vec<T> v) __attribute__((always_inline)) { return hard_silu<T>(v); });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
