// The aarch64 features that each level's compiler flags let the compiler use, and where a system
// reports them. CMakeLists.txt has the flags; a native test compares the two.
#pragma once

namespace sepconv {

struct ArmFeature {
  const char* macro;  // defined by the compiler where it may use the feature
  enum Entry { hwcap = 16, hwcap2 = 26 } entry;  // of Linux' auxiliary vector
  int bit;
  const char* sysctl;  // on macOS
};

// Beyond the first 64-bit processors, of the level that multiplies signed bytes four at a time.
inline constexpr ArmFeature kArmDotprod[] = {
    {"__ARM_FEATURE_CRC32", ArmFeature::hwcap, 7, "hw.optional.armv8_crc32"},
    {"__ARM_FEATURE_ATOMICS", ArmFeature::hwcap, 8, "hw.optional.arm.FEAT_LSE"},
    {"__ARM_FEATURE_QRDMX", ArmFeature::hwcap, 12, "hw.optional.arm.FEAT_RDM"},
    {"__ARM_FEATURE_DOTPROD", ArmFeature::hwcap, 20, "hw.optional.arm.FEAT_DotProd"},
};

// Beyond that, of the level that multiplies unsigned bytes by signed ones.
inline constexpr ArmFeature kArmI8mm[] = {
    {"__ARM_FEATURE_MATMUL_INT8", ArmFeature::hwcap2, 13, "hw.optional.arm.FEAT_I8MM"},
};

// Beyond that, of the level that multiplies bfloat16 in pairs.
inline constexpr ArmFeature kArmBf16[] = {
    {"__ARM_FEATURE_BF16_SCALAR_ARITHMETIC", ArmFeature::hwcap2, 14, "hw.optional.arm.FEAT_BF16"},
    {"__ARM_FEATURE_BF16_VECTOR_ARITHMETIC", ArmFeature::hwcap2, 14, "hw.optional.arm.FEAT_BF16"},
};

}  // namespace sepconv
