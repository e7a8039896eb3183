// The instruction-set levels that a build may have; the emulated ones, of native tests alone,
// multiply bfloat16 in pairs with an emulated instruction.
#pragma once

namespace test {

inline constexpr const char* kLevels[] = {
    "x86-64-v2",      "x86-64-v2-emulated", "x86-64-v3",     "x86-64-v4", "x86-64-v4-emulated",
    "x86-64-v4-vnni", "x86-64-v4-bf16",     "neon-emulated", "neon",      "neon-dotprod",
    "neon-i8mm",      "neon-bf16",          "generic"};

}  // namespace test
