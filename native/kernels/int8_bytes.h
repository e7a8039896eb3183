// Vectors of bytes, a channel each, and the instructions that int8 kernels are made of: products of
// some bytes of a channel with as many weights, added to an int32; and int32 sums made uint8.
//
// A block is W neighbouring channels, 16, 32 or 64 as far as the level's vectors go. Its sums are
// four vectors of int32: vector v has, in its 16 bytes number L, the channels 16 L + 4 v and the
// three after that. So the unpacking of bytes leaves them, and packing brings them back in order.
//
// With VNNI, and with NEON's dot products, an instruction multiplies four bytes by four weights,
// kTaps; without, 16-bit numbers in pairs. x86's other multiply-add of bytes saturates at 16 bits,
// which would change sums. USDOT (i8mm) takes bytes as they are. SDOT takes signed ones: what is
// multiplied then is a byte less kByteOffset, and packed biases have the rest.
#pragma once
#include "vec.h"

#if defined(__SSE4_1__)
#include <immintrin.h>  // whose functions are always inlined
#define SEPCONV_INT8_X86
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define SEPCONV_INT8_VNNI
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>  // likewise
#define SEPCONV_INT8_NEON
#endif
// Whether four are multiplied at once, and whether they are taken as they are.
#if defined(SEPCONV_INT8_VNNI) || defined(SEPCONV_INT8_NEON)
#define SEPCONV_INT8_FOURS
#if defined(SEPCONV_INT8_VNNI) || defined(__ARM_FEATURE_MATMUL_INT8)
#define SEPCONV_INT8_IN_PLACE
#endif
#endif

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// What is multiplied at once: so many taps of a channel, and what their weights are stored as.
#if defined(SEPCONV_INT8_FOURS)
inline constexpr int kTaps = 4;
using Int8Weight = int8_t;
#else
inline constexpr int kTaps = 2;
using Int8Weight = int16_t;
#endif

// What is taken off a byte to make it signed, where the instruction asks for that.
#if defined(SEPCONV_INT8_FOURS) && !defined(SEPCONV_INT8_IN_PLACE)
inline constexpr int32_t kByteOffset = 128;
#else
inline constexpr int32_t kByteOffset = 0;
#endif

// A bias with what is not in a sum of the bytes as they are multiplied: the zero point's share. The
// sums that this is added to bring it back into int32. `total`: of the weights.
inline int32_t packed_bias(int32_t bias, int32_t zero_point, int32_t total) {
  return static_cast<int32_t>(static_cast<uint32_t>(bias) -
                              static_cast<uint32_t>(zero_point - kByteOffset) *
                                  static_cast<uint32_t>(total));
}

// How sums become bytes; see Requantize.
struct Rounding {
  int32_t zero_point, lower, upper;
};

// Adding this to a float32 of at most 2^22 rounds it to an integer, half to even; the bits then
// count from those of the sum with 0.
inline constexpr float kRoundingAddend = 0x1.8p23f;
inline constexpr int32_t kRoundingBits = 0x4b400000;

template <int W>
struct Bytes;

#if defined(SEPCONV_INT8_X86)
// Float32 from int32 and back, rounded to the nearest, and the lesser of each two. Of 64 bytes the
// masked ones, of whose others GCC warns that they leave out lanes.
inline __m128 floats(__m128i v) { return _mm_cvtepi32_ps(v); }
inline __m128i whole(__m128 v) { return _mm_cvtps_epi32(v); }
inline __m128 lesser(__m128 a, __m128 b) { return _mm_min_ps(a, b); }
inline __m128 greater(__m128 a, __m128 b) { return _mm_max_ps(a, b); }
// What Bytes::bytes() gives of four vectors, with the bytes of each beside each other; and the
// first and the second half of bytes, stored.
inline __m128i vectors_of_bytes(__m128i q) { return q; }
inline void store_halves(__m128i q, uint8_t* first, uint8_t* second) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(first), q);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(second), _mm_unpackhi_epi64(q, q));
}
#if defined(__AVX2__)
inline __m256 floats(__m256i v) { return _mm256_cvtepi32_ps(v); }
inline __m256i whole(__m256 v) { return _mm256_cvtps_epi32(v); }
inline __m256 lesser(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
inline __m256 greater(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
inline __m256i vectors_of_bytes(__m256i q) {
  return _mm256_permutevar8x32_epi32(q, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
inline void store_halves(__m256i q, uint8_t* first, uint8_t* second) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(first), _mm256_castsi256_si128(q));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(second), _mm256_extracti128_si256(q, 1));
}
#endif
#if defined(__AVX512BW__)
inline constexpr __mmask16 kEverySum = 0xffff;
inline __m512 floats(__m512i v) { return _mm512_maskz_cvtepi32_ps(kEverySum, v); }
inline __m512i whole(__m512 v) { return _mm512_maskz_cvtps_epi32(kEverySum, v); }
inline __m512 lesser(__m512 a, __m512 b) { return _mm512_maskz_min_ps(kEverySum, a, b); }
inline __m512 greater(__m512 a, __m512 b) { return _mm512_maskz_max_ps(kEverySum, a, b); }
inline __m512i vectors_of_bytes(__m512i q) {
  return _mm512_maskz_permutexvar_epi32(
      kEverySum, _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), q);
}
inline void store_halves(__m512i q, uint8_t* first, uint8_t* second) {
  typedef int64_t Wide __attribute__((vector_size(64)));
  const auto all = reinterpret_cast<Wide>(q);
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(first),
                      reinterpret_cast<__m256i>(__builtin_shufflevector(all, all, 0, 1, 2, 3)));
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(second),
                      reinterpret_cast<__m256i>(__builtin_shufflevector(all, all, 4, 5, 6, 7)));
}
#endif

// P: the prefix of the width's intrinsics, S: what ends the names of those of whole registers.
#if defined(SEPCONV_INT8_VNNI)
#define SEPCONV_INT8_DOT(P, acc, x, w) _mm##P##_dpbusd_epi32(acc, x, w)
#else
#define SEPCONV_INT8_DOT(P, acc, x, w) _mm##P##_add_epi32(acc, _mm##P##_madd_epi16(x, w))
#endif
#define SEPCONV_INT8_BYTES(W, P, S, I)                                                             \
  template <>                                                                                      \
  struct Bytes<W> {                                                                                \
    using Int = I;                                                                                 \
    [[gnu::always_inline]] static Int get(const void* p) {                                         \
      return _mm##P##_loadu_si##S(static_cast<const I*>(p));                                       \
    }                                                                                              \
    [[gnu::always_inline]] static void put(void* p, Int v) {                                       \
      _mm##P##_storeu_si##S(static_cast<I*>(p), v);                                                \
    }                                                                                              \
    [[gnu::always_inline]] static Int low8(Int a, Int b) { return _mm##P##_unpacklo_epi8(a, b); }  \
    [[gnu::always_inline]] static Int high8(Int a, Int b) { return _mm##P##_unpackhi_epi8(a, b); } \
    [[gnu::always_inline]] static Int low16(Int a, Int b) {                                        \
      return _mm##P##_unpacklo_epi16(a, b);                                                        \
    }                                                                                              \
    [[gnu::always_inline]] static Int high16(Int a, Int b) {                                       \
      return _mm##P##_unpackhi_epi16(a, b);                                                        \
    }                                                                                              \
    [[gnu::always_inline]] static Int dot(Int sums, Int x, Int w) {                                \
      return SEPCONV_INT8_DOT(P, sums, x, w);                                                      \
    }                                                                                              \
    struct Limits {                                                                                \
      Int zero_point, lower, upper; /* of 16 bits, and of 8 */                                     \
    };                                                                                             \
    [[gnu::always_inline]] static Limits limits(const Rounding& r) {                               \
      return {_mm##P##_set1_epi16(static_cast<short>(r.zero_point)),                               \
              _mm##P##_set1_epi8(static_cast<char>(r.lower)),                                      \
              _mm##P##_set1_epi8(static_cast<char>(r.upper))};                                     \
    }                                                                                              \
    /* Four vectors of int32 as bytes, 16 bytes of each after the other: clamped sums. */          \
    [[gnu::always_inline]] static Int bytes(Int a, Int b, Int c, Int d, const Limits& limits) {    \
      const Int ab = _mm##P##_adds_epi16(_mm##P##_packs_epi32(a, b), limits.zero_point);           \
      const Int cd = _mm##P##_adds_epi16(_mm##P##_packs_epi32(c, d), limits.zero_point);           \
      const Int q = _mm##P##_packus_epi16(ab, cd);                                                 \
      return _mm##P##_min_epu8(_mm##P##_max_epu8(q, limits.lower), limits.upper);                  \
    }                                                                                              \
    /* Sums that stay in int32. */                                                                 \
    [[gnu::always_inline]] static void finish(const Int* sums, const float* scale,                 \
                                              const Limits& limits, uint8_t* y) {                  \
      const auto rounded = [&](int v) __attribute__((always_inline)) {                             \
        return whole(floats(sums[v]) * _mm##P##_loadu_ps(scale + v * W / 4));                      \
      };                                                                                           \
      put(y, bytes(rounded(0), rounded(1), rounded(2), rounded(3), limits));                       \
    }                                                                                              \
  };
SEPCONV_INT8_BYTES(16, , 128, __m128i)
#if defined(__AVX2__)
SEPCONV_INT8_BYTES(32, 256, 256, __m256i)
#endif
#if defined(__AVX512BW__)
SEPCONV_INT8_BYTES(64, 512, 512, __m512i)
#endif
#undef SEPCONV_INT8_BYTES
#undef SEPCONV_INT8_DOT
#else
inline Vec<float> lesser(Vec<float> a, Vec<float> b) { return a < b ? a : b; }
inline Vec<float> greater(Vec<float> a, Vec<float> b) { return a > b ? a : b; }
#endif

#if defined(SEPCONV_INT8_NEON)
template <>
struct Bytes<16> {
  using Int = uint8x16_t;
  [[gnu::always_inline]] static Int get(const void* p) {
    return vld1q_u8(static_cast<const uint8_t*>(p));
  }
  [[gnu::always_inline]] static void put(void* p, Int v) { vst1q_u8(static_cast<uint8_t*>(p), v); }
  [[gnu::always_inline]] static Int low8(Int a, Int b) { return vzip1q_u8(a, b); }
  [[gnu::always_inline]] static Int high8(Int a, Int b) { return vzip2q_u8(a, b); }
  [[gnu::always_inline]] static Int low16(Int a, Int b) {
    return vreinterpretq_u8_u16(vzip1q_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
  }
  [[gnu::always_inline]] static Int high16(Int a, Int b) {
    return vreinterpretq_u8_u16(vzip2q_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
  }
  // Of bytes less kByteOffset.
  [[gnu::always_inline]] static Int dot(Int sums, Int x, Int w) {
    const int32x4_t before = vreinterpretq_s32_u8(sums);
    const int8x16_t weights = vreinterpretq_s8_u8(w);
#if defined(SEPCONV_INT8_IN_PLACE)
    return vreinterpretq_u8_s32(vusdotq_s32(before, x, weights));
#else
    return vreinterpretq_u8_s32(vdotq_s32(before, vreinterpretq_s8_u8(x), weights));
#endif
  }
  // The same of four bytes for all channels, which need not be copied to every lane.
  [[gnu::always_inline]] static Int dot_of_four(Int sums, uint32_t x, Int w) {
    const int32x4_t before = vreinterpretq_s32_u8(sums);
    const int8x16_t weights = vreinterpretq_s8_u8(w);
    const uint32x2_t four = vset_lane_u32(x, vdup_n_u32(0), 0);
#if defined(SEPCONV_INT8_IN_PLACE)
    return vreinterpretq_u8_s32(vsudotq_lane_s32(before, weights, vreinterpret_u8_u32(four), 0));
#else
    return vreinterpretq_u8_s32(vdotq_lane_s32(before, weights, vreinterpret_s8_u32(four), 0));
#endif
  }
  struct Limits {
    int16x8_t zero_point;
    Int lower, upper;
  };
  [[gnu::always_inline]] static Limits limits(const Rounding& r) {
    return {vdupq_n_s16(static_cast<int16_t>(r.zero_point)),
            vdupq_n_u8(static_cast<uint8_t>(r.lower)), vdupq_n_u8(static_cast<uint8_t>(r.upper))};
  }
  // Eight sums, rounded and clamped to bytes.
  [[gnu::always_inline]] static uint8x8_t bytes(const Int* sums, const float* scale,
                                                const Limits& limits) {
    const auto rounded = [&](int v) __attribute__((always_inline)) {
      const float32x4_t t = vcvtq_f32_s32(vreinterpretq_s32_u8(sums[v])) * vld1q_f32(scale + 4 * v);
      return vqmovn_s32(vcvtnq_s32_f32(t));
    };
    return vqmovun_s16(vqaddq_s16(vcombine_s16(rounded(0), rounded(1)), limits.zero_point));
  }
  [[gnu::always_inline]] static void finish(const Int* sums, const float* scale,
                                            const Limits& limits, uint8_t* y) {
    const Int q = vcombine_u8(bytes(sums, scale, limits), bytes(sums + 2, scale + 8, limits));
    put(y, vminq_u8(vmaxq_u8(q, limits.lower), limits.upper));
  }
};
#elif !defined(SEPCONV_INT8_X86)
// Plain loops over 16 bytes, for every other processor.
template <>
struct Bytes<16> {
  typedef uint8_t Int __attribute__((vector_size(16)));
  typedef uint16_t Shorts __attribute__((vector_size(16)));
  typedef int16_t Signed __attribute__((vector_size(16)));
  typedef uint32_t Sums __attribute__((vector_size(16)));
  static Int get(const void* p) {
    Int v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static void put(void* p, Int v) { __builtin_memcpy(p, &v, sizeof v); }
  template <class Vector>
  static Int merged(Int a, Int b, int first) {
    constexpr int kHalf = 8 / static_cast<int>(sizeof(Vector{}[0]));
    const Vector from_a = reinterpret_cast<Vector>(a), from_b = reinterpret_cast<Vector>(b);
    Vector v{};
    for (int i = 0; i < kHalf; ++i) {
      v[2 * i] = from_a[first * kHalf + i];
      v[2 * i + 1] = from_b[first * kHalf + i];
    }
    return reinterpret_cast<Int>(v);
  }
  static Int low8(Int a, Int b) { return merged<Int>(a, b, 0); }
  static Int high8(Int a, Int b) { return merged<Int>(a, b, 1); }
  static Int low16(Int a, Int b) { return merged<Shorts>(a, b, 0); }
  static Int high16(Int a, Int b) { return merged<Shorts>(a, b, 1); }
  static Int dot(Int sums, Int x, Int w) {
    const Signed taps = reinterpret_cast<Signed>(x), weights = reinterpret_cast<Signed>(w);
    Sums total = reinterpret_cast<Sums>(sums);
    for (int i = 0; i < 4; ++i)
      total[i] += static_cast<uint32_t>(taps[2 * i] * weights[2 * i] +
                                        taps[2 * i + 1] * weights[2 * i + 1]);
    return reinterpret_cast<Int>(total);
  }
  using Limits = Rounding;
  static Limits limits(const Rounding& r) { return r; }
  static void finish(const Int* sums, const float* scale, const Limits& r, uint8_t* y) {
    typedef int32_t Whole __attribute__((vector_size(16)));
    const float least = static_cast<float>(r.lower - r.zero_point);
    const float most = static_cast<float>(r.upper - r.zero_point);
    for (int v = 0; v < 4; ++v) {
      const Whole whole = reinterpret_cast<Whole>(sums[v]);
      for (int i = 0; i < 4; ++i) {
        float t = static_cast<float>(whole[i]) * scale[4 * v + i];
        t = t < least ? least : t > most ? most : t;
        t += kRoundingAddend;
        int32_t bits;
        __builtin_memcpy(&bits, &t, sizeof bits);
        y[4 * v + i] = static_cast<uint8_t>(bits - kRoundingBits + r.zero_point);
      }
    }
  }
};
#endif

// The widest block of a level.
inline constexpr int kWidestBlock = SEPCONV_VECTOR_BYTES;

// What one channel block is: it begins at `first`, and the last one may begin inside the one
// before, so that all are whole. There are 16 channels or more.
struct ChannelBlock {
  int64_t first;
  int width;
};
template <class F>
inline void for_channel_blocks(int64_t channels, const F& f) {
  for (int64_t c = 0; c < channels;) {
    int width = kWidestBlock;
    while (width > 16 && width > channels - c) width /= 2;
    const int64_t first = min_of(c, channels - width);
    f(ChannelBlock{first, width});
    c = first + width;
  }
}
// The channels of all blocks together, in which some may be twice.
inline int64_t block_channels(int64_t channels) { return round_up(channels, 16); }

// The channel, within a block of W, of element `i` of its four vectors of sums one after the other.
inline int channel_of_sum(int width, int i) {
  const int v = i / (width / 4), lane = i % (width / 4);
  return 16 * (lane / 4) + 4 * v + lane % 4;
}

#if defined(SEPCONV_INT8_VNNI)
// Where the processor permutes bytes of two vectors (AVX512_VBMI), as all but the first with VNNI
// do; it is asked at run time, since the level does not need it.
[[gnu::target("avx512vbmi")]] inline void look_up_wide(const uint8_t* table, const uint8_t* x,
                                                       int64_t count, uint8_t* y) {
  const __m512i a = _mm512_loadu_si512(table), b = _mm512_loadu_si512(table + 64);
  const __m512i c = _mm512_loadu_si512(table + 128), d = _mm512_loadu_si512(table + 192);
  const auto found = [&](__m512i at) __attribute__((target("avx512vbmi"), always_inline)) {
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), _mm512_permutex2var_epi8(a, at, b),
                                  _mm512_permutex2var_epi8(c, at, d));
  };
  int64_t i = 0;
  for (; i + 64 <= count; i += 64) _mm512_storeu_si512(y + i, found(_mm512_loadu_si512(x + i)));
  if (i == count) return;
  const __mmask64 rest = ~uint64_t{0} >> (64 - (count - i));
  _mm512_mask_storeu_epi8(y + i, rest, found(_mm512_maskz_loadu_epi8(rest, x + i)));
}
#endif

// y = table[x]; y may be x.
inline void look_up(const uint8_t* table, const uint8_t* x, int64_t count, uint8_t* y) {
#if defined(SEPCONV_INT8_VNNI)
  if (__builtin_cpu_supports("avx512vbmi")) {
    look_up_wide(table, x, count, y);
    return;
  }
#endif
  for (int64_t i = 0; i < count; ++i) y[i] = table[x[i]];
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
