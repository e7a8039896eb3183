// A level has its own kernels and those of the level below for the rest; and it asks a processor
// for all that its compiler flags let the compiler use, and for no more.
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "../../native/arm_features.h"
#include "../../native/levels.h"
#include "../../native/x86_features.h"
#include "check.h"
#include "sections.h"

namespace test {
namespace {

using sepconv::KernelTable;

void nothing(const sepconv::Geometry&, const sepconv::Forward&, sepconv::Runner&) {}
void nothing_new(const sepconv::Geometry&, const sepconv::Forward&, sepconv::Runner&) {}
void no_fill(const sepconv::FillStep&, sepconv::Runner&) {}
void no_fill_new(const sepconv::FillStep&, sepconv::Runner&) {}
void no_lookup(const sepconv::LookupStep&, sepconv::Runner&) {}
void no_lookup_new(const sepconv::LookupStep&, sepconv::Runner&) {}
void no_quantize(const sepconv::QuantizeStep&, sepconv::Runner&) {}
void no_scale(const sepconv::ScaleStep&, sepconv::Runner&) {}
void nothing_back(const sepconv::Geometry&, const sepconv::Backward&, sepconv::Runner&) {}

// Three levels, of which the second replaces the forward pass and one array operation of float32,
// and one of int8, and the third has nothing of its own.
void check_inheritance() {
  const auto all = [](KernelTable& table) {
    table = {.forward = &nothing, .backward = &nothing_back};
  };
  const auto one = [](KernelTable& table) { table.forward = &nothing_new; };
  const auto arrays = [](sepconv::ArrayTable& table) {
    table = {.scale = &no_scale, .fill = &no_fill};
  };
  const auto one_array = [](sepconv::ArrayTable& table) { table.fill = &no_fill_new; };
  const auto int8 = [](sepconv::Int8Table& table) {
    table = {.quantize = &no_quantize, .lookup = &no_lookup};
  };
  const auto one_int8 = [](sepconv::Int8Table& table) { table.lookup = &no_lookup_new; };
  const std::vector<sepconv::Level> levels = {
      {"low", true, {all, all, all, all}, {arrays, arrays, arrays, arrays, arrays}, int8},
      {"middle", true, {one, nullptr, nullptr, nullptr}, {one_array}, one_int8},
      {"high", true, {}}};
  for (size_t index = 0; index < levels.size(); ++index) {
    const sepconv::Kernels kernels = sepconv::kernels_of(levels, index);
    CHECK(std::string(kernels.name) == levels[index].name);
    CHECK(kernels.int8.lookup == (index > 0 ? &no_lookup_new : &no_lookup));
    CHECK(kernels.int8.quantize == &no_quantize);
    for (int dtype = 0; dtype < sepconv::kDTypes; ++dtype) {
      const bool replaced = index > 0 && dtype == static_cast<int>(sepconv::DType::f32);
      CHECK(kernels.tables[dtype].forward == (replaced ? &nothing_new : &nothing));
      CHECK(kernels.tables[dtype].backward == &nothing_back);
      if (dtype >= sepconv::kArrayDTypes) continue;
      CHECK(kernels.arrays[dtype].fill == (replaced ? &no_fill_new : &no_fill));
      CHECK(kernels.arrays[dtype].scale == &no_scale);
    }
  }
}

}  // namespace

#if defined(SEPCONV_COMPILER)
namespace {

// The macros that the compiler defines with these flags; none where it is not there.
std::set<std::string> macros(const std::string& flags) {
  std::set<std::string> names;
  FILE* const out =
      popen((SEPCONV_COMPILER " " + flags + " -dM -E -x c++ /dev/null 2>&1").c_str(), "r");
  if (out == nullptr) return names;
  char line[4096], name[256];
  while (std::fgets(line, sizeof line, out) != nullptr)
    if (std::sscanf(line, "#define %255s", name) == 1) names.insert(name);
  pclose(out);
  return names;
}

// Of those that a level adds: what says something about a feature that has a macro of its own.
bool is_derived(const std::string& macro) {
  return macro.starts_with("__FP_FAST_FMA") || macro.starts_with("__EVEX") ||
         macro.starts_with("__tune_") || macro.ends_with("_MATH__") ||
         macro.starts_with("__ARM_BF16_FORMAT") || macro == "__ARM_FEATURE_BF16";
}

template <class Features>
void check_features(const char* flags, const char* flags_below, const Features& features) {
  std::set<std::string> left = macros(flags);
  const std::set<std::string> below = macros(flags_below);
  if (left.empty() || below.empty()) return;
  for (const std::string& macro : below) left.erase(macro);
  std::erase_if(left, is_derived);
  for (const auto& feature : features) {
    // Older compilers have no macro of these two, and may use them all the same.
    const std::string name = feature.macro;
    const bool optional = name == "__CRC32__" || name == "__LAHF_SAHF__";
    if (!CHECK(left.erase(name) == 1 || optional))
      std::fprintf(stderr, "  %s does not come with %s\n", feature.macro, flags);
  }
  for (const std::string& macro : left) {
    CHECK(!"a feature that is used and not asked for");
    std::fprintf(stderr, "  %s comes with %s\n", macro.c_str(), flags);
  }
}

}  // namespace

void check_levels() {
  check_inheritance();
#if defined(SEPCONV_X86)
  check_features(SEPCONV_FLAGS_v2, "-march=x86-64", sepconv::kX86V2);
  check_features(SEPCONV_FLAGS_v3, SEPCONV_FLAGS_v2, sepconv::kX86V3);
  check_features(SEPCONV_FLAGS_v4, SEPCONV_FLAGS_v3, sepconv::kX86V4);
  check_features(SEPCONV_FLAGS_v4_vnni, SEPCONV_FLAGS_v4, sepconv::kX86V4Vnni);
  check_features(SEPCONV_FLAGS_v4_bf16, SEPCONV_FLAGS_v4_vnni, sepconv::kX86V4Bf16);
#else
  check_features(SEPCONV_FLAGS_neon_dotprod, "-march=armv8-a", sepconv::kArmDotprod);
  check_features(SEPCONV_FLAGS_neon_i8mm, SEPCONV_FLAGS_neon_dotprod, sepconv::kArmI8mm);
  check_features(SEPCONV_FLAGS_neon_bf16, SEPCONV_FLAGS_neon_i8mm, sepconv::kArmBf16);
#endif
}
#else
void check_levels() { check_inheritance(); }
#endif

}  // namespace test
