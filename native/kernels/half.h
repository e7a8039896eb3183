// Converts bfloat16 and float16 to float32 and back, a vector at a time.
//
// Only with operations that every instruction set has and that no flush of small numbers to zero
// affects, so that every level and every engine's thread gives the same bits. Rounds to the
// nearest, ties to even, as IEEE 754 does; NaN stays NaN.
#pragma once
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

typedef uint32_t Words __attribute__((vector_size(SEPCONV_VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(SEPCONV_VECTOR_BYTES / 2)));
typedef uint16_t LooseHalves
    __attribute__((vector_size(SEPCONV_VECTOR_BYTES / 2), aligned(2), may_alias));

inline Words words_of(Vec<float> v) { return reinterpret_cast<Words>(v); }
inline Vec<float> floats_of(Words v) { return reinterpret_cast<Vec<float>>(v); }

// The upper half of a float32.
struct BFloat16 {
  static Vec<float> widen(Words bits) { return floats_of(bits << 16); }
  static Words narrow(Vec<float> v) {
    const Words bits = words_of(v), magnitude = bits & 0x7fffffffu;
    const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return magnitude > 0x7f800000u ? ((bits >> 16) | 0x40u) : rounded;
  }
};

// 5 bits of exponent, 10 of fraction. The exponents of the two types are 112 apart.
struct Float16 {
  static Vec<float> widen(Words bits) {
    const Words sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    const Words normal = (magnitude << 13) + (112u << 23);
    const Words special = (magnitude << 13) + (224u << 23);  // infinite or NaN
    // A float16 below the least normal number is a multiple of 2^-24.
    const Vec<float> small = __builtin_convertvector(magnitude, Vec<float>) * 0x1p-24f;
    const Words found = magnitude >= 0x7c00u ? special : normal;
    return floats_of((magnitude < 0x400u ? words_of(small) : found) | sign);
  }
  static Words narrow(Vec<float> v) {
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
    return found | sign;
  }
};

template <class Half>
void widen_run(const uint16_t* from, int64_t count, float* to) {
  constexpr int kVec = kLanes<float>;
  int64_t i = 0;
  for (; i + kVec <= count; i += kVec)
    store(to + i,
          Half::widen(__builtin_convertvector(
              static_cast<Halves>(*reinterpret_cast<const LooseHalves*>(from + i)), Words)));
  if (i == count) return;
  Words rest{};
  for (int lane = 0; lane < count - i; ++lane) rest[lane] = from[i + lane];
  const Vec<float> last = Half::widen(rest);
  for (int lane = 0; lane < count - i; ++lane) to[i + lane] = last[lane];
}

template <class Half>
void narrow_run(const float* from, int64_t count, uint16_t* to) {
  constexpr int kVec = kLanes<float>;
  int64_t i = 0;
  for (; i + kVec <= count; i += kVec)
    *reinterpret_cast<LooseHalves*>(to + i) =
        __builtin_convertvector(Half::narrow(load(from + i)), Halves);
  if (i == count) return;
  Vec<float> rest{};
  for (int lane = 0; lane < count - i; ++lane) rest[lane] = from[i + lane];
  const Words last = Half::narrow(rest);
  for (int lane = 0; lane < count - i; ++lane) to[i + lane] = static_cast<uint16_t>(last[lane]);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
