// The half types bfloat16 and float16: how they are stored, and how vectors of them become float32
// and vectors of float32 become them.
//
// No flush of small numbers to zero affects the conversions, so that every level and every engine's
// thread gives the same bits. They round to the nearest, ties to even, as IEEE 754 does; NaN stays
// NaN.
//
// Kernels over any type compute in Real<T> and read and write by load_real() and its like, which
// for float32 and float64 are load() and the like themselves.
#pragma once
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

typedef uint32_t Words __attribute__((vector_size(SEPCONV_VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(SEPCONV_VECTOR_BYTES / 2)));
typedef uint16_t LooseHalves
    __attribute__((vector_size(SEPCONV_VECTOR_BYTES / 2), aligned(2), may_alias));

typedef uint16_t LooseBits __attribute__((may_alias));

inline Words words_of(Vec<float> v) { return reinterpret_cast<Words>(v); }
inline Vec<float> floats_of(Words v) { return reinterpret_cast<Vec<float>>(v); }

// The upper half of a float32.
struct BFloat16 {
  uint16_t bits;

#if defined(__AVX512BW__)
  // One instruction: the words go to odd places, with zeros at the even ones.
  static Vec<float> widen(Halves halves) {
    typedef uint16_t Places __attribute__((vector_size(64)));
    static constexpr Places kPlaces = {0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                                       0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
    return reinterpret_cast<Vec<float>>(
        _mm512_maskz_permutexvar_epi16(0xaaaaaaaau, reinterpret_cast<__m512i>(kPlaces),
                                       _mm512_castsi256_si512(reinterpret_cast<__m256i>(halves))));
  }
#elif defined(__AVX2__)
  // One instruction beside a load that fills both halves of a register; zeros come of places that
  // are none.
  static Vec<float> widen(Halves halves) {
    typedef uint8_t Places __attribute__((vector_size(32)));
    constexpr uint8_t kNone = 128;
    static constexpr Places kPlaces = {
        kNone, kNone, 0, 1, kNone, kNone, 2,  3,  kNone, kNone, 4,  5,  kNone, kNone, 6,  7,
        kNone, kNone, 8, 9, kNone, kNone, 10, 11, kNone, kNone, 12, 13, kNone, kNone, 14, 15};
    return reinterpret_cast<Vec<float>>(
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(reinterpret_cast<__m128i>(halves)),
                            reinterpret_cast<__m256i>(kPlaces)));
  }
#else
  static Vec<float> widen(Halves halves) {
    return floats_of(__builtin_convertvector(halves, Words) << 16);
  }
#endif
#if defined(__AVX512BF16__)
  // The instruction takes denormal numbers for zeros; these are rare.
  static Halves narrow(Vec<float> v) {
    constexpr int kDenormal = 0x20;
    if (__builtin_expect(_mm512_fpclass_ps_mask(v, kDenormal) != 0, 0))
      return upper_halves(carried(v));
    return reinterpret_cast<Halves>(_mm512_maskz_cvtneps_pbh(static_cast<__mmask16>(0xffff), v));
  }
  static Halves narrow_sum(Vec<float> v) { return narrow(v); }
#else
  static Halves narrow(Vec<float> v) { return upper_halves(carried(v)); }
  static Halves narrow_sum(Vec<float> v) { return upper_halves(carried_sum(v)); }
#endif
  // The number that is stored.
  static Vec<float> rounded(Vec<float> v) { return floats_of(carried(v) & 0xffff0000u); }
  static Vec<float> rounded_sum(Vec<float> v) { return floats_of(carried_sum(v) & 0xffff0000u); }

 private:
  // Words whose upper halves are rounded.
  static Words carried(Vec<float> v) { return v != v ? words_of(v) | 0x400000u : carried_sum(v); }
  // Of sums of products of bfloat16 numbers. If one is NaN, its lower half is 0, as that of its
  // operands and of the processor's own NaN is, so that no carry makes another number of it.
  static Words carried_sum(Vec<float> v) {
    const Words bits = words_of(v);
    return bits + 0x7fffu + ((bits >> 16) & 1u);
  }
  static Halves upper_halves(Words words) {
#if defined(__AVX512BW__)
    typedef uint16_t All __attribute__((vector_size(SEPCONV_VECTOR_BYTES)));
    const All halves = reinterpret_cast<All>(words);
    return __builtin_shufflevector(halves, halves, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25,
                                   27, 29, 31);
#elif defined(__AVX2__)
    const auto upper = reinterpret_cast<__m256i>(words >> 16);
    return reinterpret_cast<Halves>(
        _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1)));
#else
    return __builtin_convertvector(words >> 16, Halves);
#endif
  }
};

// 5 bits of exponent, 10 of fraction. The exponents of the two types are 112 apart.
struct Float16 {
  uint16_t bits;

  static Vec<float> rounded(Vec<float> v) { return widen(narrow(v)); }
  static Halves narrow_sum(Vec<float> v) { return narrow(v); }
  static Vec<float> rounded_sum(Vec<float> v) { return rounded(v); }
// These instructions neither consult nor obey a flush to zero.
#if defined(__AVX512F__)
  static Vec<float> widen(Halves halves) {
    return _mm512_maskz_cvtph_ps(static_cast<__mmask16>(0xffff), reinterpret_cast<__m256i>(halves));
  }
  static Halves narrow(Vec<float> v) {
    return reinterpret_cast<Halves>(_mm512_maskz_cvtps_ph(
        static_cast<__mmask16>(0xffff), v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#elif defined(__F16C__)
  static Vec<float> widen(Halves halves) {
    return _mm256_cvtph_ps(reinterpret_cast<__m128i>(halves));
  }
  static Halves narrow(Vec<float> v) {
    return reinterpret_cast<Halves>(
        _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#else
  static Vec<float> widen(Halves halves) {
    const Words bits = __builtin_convertvector(halves, Words);
    const Words sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    const Words normal = (magnitude << 13) + (112u << 23);
    const Words special = (magnitude << 13) + (224u << 23);  // infinite or NaN
    // A float16 below the least normal number is a multiple of 2^-24.
    const Vec<float> small = __builtin_convertvector(magnitude, Vec<float>) * 0x1p-24f;
    const Words found = magnitude >= 0x7c00u ? special : normal;
    return floats_of((magnitude < 0x400u ? words_of(small) : found) | sign);
  }
  static Halves narrow(Vec<float> v) {
    const Words bits = words_of(v), sign = (bits >> 16) & 0x8000u;
    const Words magnitude = bits & 0x7fffffffu;
    const Words normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
    // The last bit of 2^23 stands for 1, so adding it rounds to whole multiples of 2^-24.
    const Vec<float> counted = floats_of(magnitude) * 0x1p24f + 0x1p23f;
    const Words small = words_of(counted) - 0x4b000000u;
    const Words nan = ((magnitude >> 13) & 0x3ffu) | 0x7e00u;
    Words found = magnitude < 0x38800000u ? small : normal;
    found = magnitude >= 0x477ff000u ? Words{} + 0x7c00u : found;  // rounds to infinity
    found = magnitude > 0x7f800000u ? nan : found;
    return __builtin_convertvector(found | sign, Halves);
  }
#endif
};

// A vector of what is stored.
template <>
struct VecTypes<BFloat16> : VecTypes<uint16_t> {};
template <>
struct VecTypes<Float16> : VecTypes<uint16_t> {};

template <class A, class B>
inline constexpr bool kSame = false;
template <class A>
inline constexpr bool kSame<A, A> = true;

template <class T>
inline constexpr bool kIsHalf = kSame<T, BFloat16> || kSame<T, Float16>;

// What kernels compute in where tensors are of T.
template <class T>
struct RealOf {
  using Type = T;
};
template <>
struct RealOf<BFloat16> {
  using Type = float;
};
template <>
struct RealOf<Float16> {
  using Type = float;
};
template <class T>
using Real = typename RealOf<T>::Type;

// The first `count` halves, 1 to all of a vector of float32's; the others are 0 and not touched.
inline Halves load_halves(const void* p, int64_t count) {
#if defined(__AVX512F__)
  return reinterpret_cast<Halves>(
      _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), p));
#else
  Halves v{};
  for (int lane = 0; lane < count; ++lane) v[lane] = static_cast<const LooseBits*>(p)[lane];
  return v;
#endif
}
inline void store_halves(void* p, Halves v, int64_t count) {
#if defined(__AVX512F__)
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << count) - 1),
                           reinterpret_cast<__m256i>(v));
#else
  for (int lane = 0; lane < count; ++lane) static_cast<LooseBits*>(p)[lane] = v[lane];
#endif
}

// kLanes<Real<T>> elements, or the first `count` of them.
template <class T>
inline Vec<Real<T>> load_real(const T* p) {
  if constexpr (kIsHalf<T>)
    return T::widen(*reinterpret_cast<const LooseHalves*>(p));
  else
    return load(p);
}
template <class T>
inline Vec<Real<T>> load_real_first(const T* p, int64_t count) {
  if constexpr (kIsHalf<T>)
    return T::widen(load_halves(p, count));
  else
    return load_first(p, count);
}
template <class T>
inline void store_real(T* p, Vec<Real<T>> v) {
  if constexpr (kIsHalf<T>)
    *reinterpret_cast<LooseHalves*>(p) = T::narrow(v);
  else
    store(p, v);
}
template <class T>
inline void store_real_first(T* p, Vec<Real<T>> v, int64_t count) {
  if constexpr (kIsHalf<T>)
    store_halves(p, T::narrow(v), count);
  else
    store_first(p, v, count);
}

// Stores numbers rounded to S: as S, or as the numbers that they are then.
template <class S, class Out>
inline void store_rounded(Out* p, Vec<Real<S>> v) {
  if constexpr (kSame<S, Out>)
    store_real(p, v);
  else
    store(p, S::rounded(v));
}

// The same of sums of products of numbers of S, which are rounded with fewer instructions.
template <class S, class Out>
inline void store_sum(Out* p, Vec<Real<S>> v) {
  if constexpr (!kIsHalf<S>)
    store(p, v);
  else if constexpr (kSame<S, Out>)
    *reinterpret_cast<LooseHalves*>(p) = S::narrow_sum(v);
  else
    store(p, S::rounded_sum(v));
}

// One element.
template <class T>
inline Real<T> real(T v) {
  if constexpr (kSame<T, BFloat16>) {
    const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
    float wide;
    __builtin_memcpy(&wide, &bits, sizeof wide);
    return wide;
  } else if constexpr (kIsHalf<T>)
    return T::widen(Halves{v.bits})[0];
  else
    return v;
}
template <class T>
inline T rounded_to(Real<T> v) {
  if constexpr (kIsHalf<T>)
    return {T::narrow(Vec<float>{v})[0]};
  else
    return v;
}

// An element as one of another type: the same, or float32 and a half type.
template <class To, class From>
inline To converted_to(From v) {
  if constexpr (kSame<To, From>)
    return v;
  else
    return rounded_to<To>(real(v));
}

// Consecutive elements of one of the types as those of another: the same, or float32 and a half
// type.
template <class From, class To>
void convert_run(const From* from, int64_t count, To* to) {
  constexpr int kVec = kLanes<Real<From>>;
  int64_t i = 0;
  for (; i + kVec <= count; i += kVec) store_real(to + i, load_real(from + i));
  if (i < count) store_real_first(to + i, load_real_first(from + i, count - i), count - i);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
