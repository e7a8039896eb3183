// The instruction-set levels of this build, and which of them run on this processor.
#include "levels.h"

#if defined(SEPCONV_X86)
#include <cpuid.h>

#include "x86_features.h"
#elif defined(__aarch64__)
#include "arm_features.h"
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace sepconv {

#define SEPCONV_REPLACE_ARRAYS(level)                                                            \
  {&level::replace_arrays_f32, &level::replace_arrays_f64, &level::replace_arrays_bf16, nullptr, \
   &level::replace_arrays_u8}
#define SEPCONV_REPLACE_ALL(level)                                                       \
  {&level::replace_f32, &level::replace_f64, &level::replace_bf16, &level::replace_f16}, \
      SEPCONV_REPLACE_ARRAYS(level), &level::replace_int8

#if defined(SEPCONV_EMULATED_LEVELS)
// A level of the native tests, in the order of levels before the one whose kernels it has but for
// those of bfloat16 that are emulated: no processor would choose it by itself.
#define SEPCONV_REPLACE_ALL_BUT_BF16(level, emulated) \
  {&level::replace_f32, &level::replace_f64,          \
   [](KernelTable& table) {                           \
     level::replace_bf16(table);                      \
     emulated::replace_bf16(table);                   \
   },                                                 \
   &level::replace_f16},                              \
      SEPCONV_REPLACE_ARRAYS(level), &level::replace_int8
#endif

namespace {

#if defined(SEPCONV_X86)
bool has(const X86Feature& feature) {
  unsigned registers[4] = {};
  return __get_cpuid_count(feature.leaf, feature.subleaf, &registers[X86Feature::eax],
                           &registers[X86Feature::ebx], &registers[X86Feature::ecx],
                           &registers[X86Feature::edx]) != 0 &&
         (registers[feature.at] >> feature.bit & 1) != 0;
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
#elif defined(__aarch64__)
bool has([[maybe_unused]] const ArmFeature& feature) {
#if defined(__linux__)
  return (getauxval(feature.entry) >> feature.bit & 1) != 0;
#elif defined(__APPLE__)
  int found = 0;
  size_t size = sizeof found;
  return sysctlbyname(feature.sysctl, &found, &size, nullptr, 0) == 0 && found != 0;
#else
  return false;
#endif
}
#endif

template <class Features>
bool has_all(const Features& features) {
  for (const auto& feature : features)
    if (!has(feature)) return false;
  return true;
}

}  // namespace

#if defined(SEPCONV_X86)
std::vector<Level> all_levels() {
  const bool v2 = has_all(kX86V2);
  const bool v3 = v2 && has_all(kX86V3) && saves(kSavesAvx);
  const bool v4 = v3 && has_all(kX86V4) && saves(kSavesAvx512);
  const bool has_vnni = v4 && has_all(kX86V4Vnni);
  const bool has_bf16 = has_vnni && has_all(kX86V4Bf16);
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
      {"x86-64-v4-vnni", has_vnni, {}, {}, &v4_vnni::replace_int8},
      {"x86-64-v4-bf16", has_bf16, {nullptr, nullptr, &v4_bf16::replace_bf16, nullptr}}};
}
#elif defined(__aarch64__)
std::vector<Level> all_levels() {
  const bool has_dotprod = has_all(kArmDotprod);
  const bool has_i8mm = has_dotprod && has_all(kArmI8mm);
  const bool has_bf16 = has_i8mm && has_all(kArmBf16);
  return {
#if defined(SEPCONV_EMULATED_LEVELS)
      {"neon-emulated", true, SEPCONV_REPLACE_ALL_BUT_BF16(baseline, neon_emulated)},
#endif
      {"neon", true, SEPCONV_REPLACE_ALL(baseline)},
      {"neon-dotprod", has_dotprod, {}, {}, &neon_dotprod::replace_int8},
      {"neon-i8mm", has_i8mm, {}, {}, &neon_i8mm::replace_int8},
      {"neon-bf16", has_bf16, {nullptr, nullptr, &neon_bf16::replace_bf16, nullptr}}};
}
#else
std::vector<Level> all_levels() { return {{"generic", true, SEPCONV_REPLACE_ALL(baseline)}}; }
#endif

}  // namespace sepconv
