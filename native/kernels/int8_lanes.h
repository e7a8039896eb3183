// Bytes as lanes of int32, and such lanes as bytes.
#pragma once
#include "int8_bytes.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

typedef uint8_t LaneBytes __attribute__((vector_size(kLanes<int32_t>), aligned(1), may_alias));

// As many bytes as lanes; GCC 12 converts such vectors a lane at a time.
[[gnu::always_inline]] inline Vec<int32_t> byte_lanes(const uint8_t* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<Vec<int32_t>>(_mm512_maskz_cvtepu8_epi32(kEverySum, bytes));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<Vec<int32_t>>(_mm256_cvtepu8_epi32(bytes));
#elif defined(SEPCONV_INT8_X86)
  int bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return reinterpret_cast<Vec<int32_t>>(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)));
#elif defined(SEPCONV_INT8_NEON)
  uint32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  const uint16x8_t words = vmovl_u8(vreinterpret_u8_u32(vset_lane_u32(bytes, vdup_n_u32(0), 0)));
  return reinterpret_cast<Vec<int32_t>>(vmovl_u16(vget_low_u16(words)));
#else
  return __builtin_convertvector(*reinterpret_cast<const LaneBytes*>(p), Vec<int32_t>);
#endif
}

// Stores lanes of 0 to 255 as bytes.
[[gnu::always_inline]] inline void store_bytes(uint8_t* to, Vec<int32_t> v) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm512_maskz_cvtepi32_epi8(kEverySum, reinterpret_cast<__m512i>(v)));
#elif defined(__AVX2__)
  const __m256i all = reinterpret_cast<__m256i>(v);
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
#elif defined(SEPCONV_INT8_X86)
  const __m128i words = _mm_packs_epi32(reinterpret_cast<__m128i>(v), reinterpret_cast<__m128i>(v));
  const int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
  __builtin_memcpy(to, &bytes, sizeof bytes);
#elif defined(SEPCONV_INT8_NEON)
  const uint16x4_t words = vmovn_u32(reinterpret_cast<uint32x4_t>(v));
  const uint8x8_t packed = vmovn_u16(vcombine_u16(words, words));
  const uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(packed), 0);
  __builtin_memcpy(to, &bytes, sizeof bytes);
#else
  for (int lane = 0; lane < kLanes<int32_t>; ++lane) to[lane] = static_cast<uint8_t>(v[lane]);
#endif
}

// The first `count` of them; and the first `count` bytes as lanes.
#if defined(__AVX512BW__)
inline void store_first_bytes(uint8_t* to, Vec<int32_t> v, int64_t count) {
  _mm512_mask_cvtepi32_storeu_epi8(to, static_cast<__mmask16>((1u << count) - 1),
                                   reinterpret_cast<__m512i>(v));
}
inline Vec<int32_t> load_first_bytes(const uint8_t* p, int64_t count) {
  const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << count) - 1), p);
  return reinterpret_cast<Vec<int32_t>>(_mm512_maskz_cvtepu8_epi32(kEverySum, bytes));
}
#else
inline void store_first_bytes(uint8_t* to, Vec<int32_t> v, int64_t count) {
  uint8_t bytes[kLanes<int32_t>];
  store_bytes(bytes, v);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = bytes[lane];
}
inline Vec<int32_t> load_first_bytes(const uint8_t* p, int64_t count) {
  Vec<int32_t> v{};
  for (int64_t lane = 0; lane < count; ++lane) v[lane] = p[lane];
  return v;
}
#endif

// Numbers of float32 between `least` and `most`, rounded, as lanes of 0 to 255: `offset` is
// kRoundingBits less the zero point. NaN stays none of them.
[[gnu::always_inline]] inline Vec<int32_t> rounded_lanes(Vec<float> t, Vec<float> least,
                                                         Vec<float> most, int32_t offset) {
  t = lesser(greater(t, least), most) + kRoundingAddend;
  return reinterpret_cast<Vec<int32_t>>(t) - offset;
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
