// The instruction-set levels of this build, and which of them run on this processor.
#include "levels.h"

#if defined(SEPCONV_X86)
#include <cpuid.h>

#include <span>

#include "x86_features.h"
#endif

namespace sepconv {

#define SEPCONV_REPLACE_ALL(level)                                                         \
  {&level::replace_f32, &level::replace_f64, &level::replace_bf16, &level::replace_f16}, { \
    &level::replace_arrays_f32, &level::replace_arrays_f64                                 \
  }

#if defined(SEPCONV_EMULATED_LEVELS)
// A level of the native tests, in the order of levels before the one whose kernels it has but for
// those of bfloat16 that are emulated: no processor would choose it by itself.
#define SEPCONV_REPLACE_ALL_BUT_BF16(level, emulated)      \
  {&level::replace_f32, &level::replace_f64,               \
   [](KernelTable& table) {                                \
     level::replace_bf16(table);                           \
     emulated::replace_bf16(table);                        \
   },                                                      \
   &level::replace_f16},                                   \
  {                                                        \
    &level::replace_arrays_f32, &level::replace_arrays_f64 \
  }
#endif

#if defined(SEPCONV_X86)
namespace {

bool has(const X86Feature& feature) {
  unsigned registers[4] = {};
  return __get_cpuid_count(feature.leaf, feature.subleaf, &registers[X86Feature::eax],
                           &registers[X86Feature::ebx], &registers[X86Feature::ecx],
                           &registers[X86Feature::edx]) != 0 &&
         (registers[feature.at] >> feature.bit & 1) != 0;
}

bool has_all(std::span<const X86Feature> features) {
  for (const X86Feature& feature : features)
    if (!has(feature)) return false;
  return true;
}

// Whether the system saves these registers.
bool saves(uint64_t registers) {
#if defined(__APPLE__)
  // macOS begins to save those of AVX-512 when they are first used.
  if (registers == kSavesAvx512) registers = kSavesAvx;
#endif
  if (!has({"OSXSAVE", 1, 0, X86Feature::ecx, 27})) return false;  // there is no XGETBV
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & registers) == registers;
}

}  // namespace

std::vector<Level> all_levels() {
  const bool v2 = has_all(kX86V2);
  const bool v3 = v2 && has_all(kX86V3) && saves(kSavesAvx);
  const bool v4 = v3 && has_all(kX86V4) && saves(kSavesAvx512);
  const bool has_bf16 = v4 && has_all(kX86V4Bf16);
  return {
#if defined(SEPCONV_EMULATED_LEVELS)
      {"x86-64-v2-emulated", v2, SEPCONV_REPLACE_ALL_BUT_BF16(v2, v2_emulated)},
#endif
      {"x86-64-v2", v2, SEPCONV_REPLACE_ALL(v2)},
      {"x86-64-v3", v3, SEPCONV_REPLACE_ALL(v3)},
#if defined(SEPCONV_EMULATED_LEVELS)
      {"x86-64-v4-emulated", v4, SEPCONV_REPLACE_ALL_BUT_BF16(v4, v4_emulated)},
#endif
      {"x86-64-v4", v4, SEPCONV_REPLACE_ALL(v4)},
      {"x86-64-v4-bf16", has_bf16, {nullptr, nullptr, &v4_bf16::replace_bf16, nullptr}}};
}
#else
std::vector<Level> all_levels() {
#if defined(__aarch64__)
  return {{"neon", true, SEPCONV_REPLACE_ALL(baseline)}};
#else
  return {{"generic", true, SEPCONV_REPLACE_ALL(baseline)}};
#endif
}
#endif

}  // namespace sepconv
