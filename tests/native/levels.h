// The instruction-set levels that a build may have.
#pragma once

namespace test {

inline constexpr const char* kLevels[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4", "neon", "generic"};

}  // namespace test
