// The x86 features that each level's compiler flags let the compiler use, and the bits by which a
// processor reports them. CMakeLists.txt has the flags; a native test compares the two.
#pragma once
#include <cstdint>

namespace sepconv {

struct X86Feature {
  const char* macro;       // defined by the compiler where it may use the feature
  uint32_t leaf, subleaf;  // of CPUID
  enum Register { eax, ebx, ecx, edx } at;
  int bit;
};

inline constexpr uint32_t kExtendedLeaf = 0x80000001;

// Beyond the first 64-bit processors.
inline constexpr X86Feature kX86V2[] = {
    {"__SSE3__", 1, 0, X86Feature::ecx, 0},
    {"__SSSE3__", 1, 0, X86Feature::ecx, 9},
    {"__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16", 1, 0, X86Feature::ecx, 13},
    {"__SSE4_1__", 1, 0, X86Feature::ecx, 19},
    {"__SSE4_2__", 1, 0, X86Feature::ecx, 20},
    {"__CRC32__", 1, 0, X86Feature::ecx, 20},  // comes with SSE4.2
    {"__POPCNT__", 1, 0, X86Feature::ecx, 23},
    {"__LAHF_SAHF__", kExtendedLeaf, 0, X86Feature::ecx, 0},
};

// Beyond v2.
inline constexpr X86Feature kX86V3[] = {
    {"__FMA__", 1, 0, X86Feature::ecx, 12},
    {"__MOVBE__", 1, 0, X86Feature::ecx, 22},
    {"__XSAVE__", 1, 0, X86Feature::ecx, 26},
    {"__AVX__", 1, 0, X86Feature::ecx, 28},
    {"__F16C__", 1, 0, X86Feature::ecx, 29},
    {"__BMI__", 7, 0, X86Feature::ebx, 3},
    {"__AVX2__", 7, 0, X86Feature::ebx, 5},
    {"__BMI2__", 7, 0, X86Feature::ebx, 8},
    {"__LZCNT__", kExtendedLeaf, 0, X86Feature::ecx, 5},
};

// Beyond v3.
inline constexpr X86Feature kX86V4[] = {
    {"__AVX512F__", 7, 0, X86Feature::ebx, 16},
    {"__AVX512DQ__", 7, 0, X86Feature::ebx, 17},
    {"__AVX512CD__", 7, 0, X86Feature::ebx, 28},
    {"__AVX512BW__", 7, 0, X86Feature::ebx, 30},
    {"__AVX512VL__", 7, 0, X86Feature::ebx, 31},
    {"__PRFCHW__", kExtendedLeaf, 0, X86Feature::ecx, 8},
};

// Beyond v4, of the level that multiplies bytes four at a time.
inline constexpr X86Feature kX86V4Vnni[] = {
    {"__AVX512VNNI__", 7, 0, X86Feature::ecx, 11},
};

// Beyond that, of the level that multiplies bfloat16 in pairs.
inline constexpr X86Feature kX86V4Bf16[] = {
    {"__AVX512BF16__", 7, 1, X86Feature::eax, 5},
};

// The registers that the system saves when it switches threads, as bits of XCR0. A processor's AVX
// is of no use under a system that does not save its registers.
inline constexpr uint64_t kSavesAvx = 0x6, kSavesAvx512 = 0xe6;

}  // namespace sepconv
