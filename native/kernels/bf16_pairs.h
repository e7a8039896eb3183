// The product of bfloat16 in pairs of k, for instruction sets with an instruction that adds the
// products of two pairs to a float32: operands stay as they are stored, and sums are float32's.
//
// VDPBF16PS (AVX512_BF16) adds the product of the second elements, then that of the first, each
// rounded to the nearest; it takes numbers too small to be normal as zeros, and makes them zeros,
// whatever MXCSR says. BFDOT (aarch64) adds up the two products first, rounded to odd.
// SEPCONV_EMULATED_PAIRS computes as VDPBF16PS does with what every processor has, for tests.
#pragma once
#include "gemm_policy.h"

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>  // whose functions are always inlined
#endif

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class Stored>
struct PairProduct {
  using A = BFloat16;
  using B = BFloat16;
  using Sum = float;
  using C = Stored;
  using Epilogue = sepconv::SEPCONV_ISA_NAMESPACE::Epilogue<float, Stored>;
  static constexpr int kSteps = 2;
  static constexpr int kRows = sepconv::SEPCONV_ISA_NAMESPACE::kRows;
  static constexpr int kVectors = tuning::kProductVectors;
  static constexpr int kColumns = kVectors * kLanes<Sum>;
  static constexpr bool kHalves = SEPCONV_VECTOR_BYTES == 64;
  static constexpr int kPanelRows = 1;

  // The first of a pair is the lower half, since bytes are little endian.
  using Steps = uint32_t;
  [[gnu::always_inline]] static Steps steps(const A* a) {
    Steps pair;
    __builtin_memcpy(&pair, a, sizeof pair);
    return pair;
  }
  [[gnu::always_inline]] static Steps first_steps(const A* a, int64_t) { return a->bits; }

#if defined(SEPCONV_EMULATED_PAIRS)
  static float flushed(float v) { return __builtin_fabsf(v) < 0x1p-126f ? v * 0 : v; }
  static float upper(uint32_t pair) {
    const uint32_t bits = pair & 0xffff0000u;
    float v;
    __builtin_memcpy(&v, &bits, sizeof v);
    return flushed(v);
  }
  template <class Sums, class Pairs>
  static void add(Sums& sums, Steps a, const Pairs& b) {
    constexpr int kCount = sizeof(Sums) / sizeof(float);
    uint32_t pairs[kCount];
    __builtin_memcpy(pairs, &b, sizeof pairs);
    for (int lane = 0; lane < kCount; ++lane) {
      float sum = flushed(sums[lane]);
      sum = flushed(__builtin_fmaf(upper(a), upper(pairs[lane]), sum));
      sums[lane] = flushed(__builtin_fmaf(upper(a << 16), upper(pairs[lane] << 16), sum));
    }
  }
#elif defined(__AVX512BF16__)
  [[gnu::always_inline]] static void add(Vec<float>& sums, Steps a, const Vec<BFloat16>& b) {
    sums =
        _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a))),
                         reinterpret_cast<__m512bh>(b));
  }
  [[gnu::always_inline]] static void add(HalfVecTypes<float>::Aligned& sums, Steps a,
                                         const HalfVecTypes<BFloat16>::Aligned& b) {
    sums =
        _mm256_dpbf16_ps(sums, reinterpret_cast<__m256bh>(_mm256_set1_epi32(static_cast<int>(a))),
                         reinterpret_cast<__m256bh>(b));
  }
#else
  [[gnu::always_inline]] static void add(Vec<float>& sums, Steps a, const Vec<BFloat16>& b) {
    sums = vbfdotq_f32(sums, vreinterpretq_bf16_u32(vdupq_n_u32(a)),
                       vreinterpretq_bf16_u16(reinterpret_cast<uint16x8_t>(b)));
  }
#endif
};

template <>
struct MultipliedAs<BFloat16> {
  using Type = BFloat16;
};
template <>
struct OperandProduct<BFloat16> {
  using Type = PairProduct<BFloat16>;
};
template <class Stored>
struct StoringProduct<BFloat16, Stored> {
  using Type = PairProduct<Stored>;
};

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
