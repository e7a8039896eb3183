// The instruction-set levels of this build, and which of them run on this processor.
#pragma once
#include <vector>

#include "kernels/kernel_table.h"

namespace sepconv {

inline constexpr int kDTypes = 4;

struct Level {
  const char* name;
  bool runnable;
  // By DType. Puts the level's functions into a table that holds those of the level below, which
  // stay where the level has none of its own. Null where it has none at all for the type.
  void (*replace[kDTypes])(KernelTable&);
};

// The best level is the last. Each needs everything that the one below it needs.
std::vector<Level> all_levels();

}  // namespace sepconv
