// The instruction-set levels of this build, and which of them run on this processor.
#pragma once
#include <vector>

#include "kernels/kernel_table.h"

namespace sepconv {

inline constexpr int kDTypes = 4;

struct Level {
  const char* name;
  bool runnable;
  // By DType: puts the level's own functions into a table that has those of the level below, and so
  // may leave some of them. Null: the table stays that of the level below.
  void (*replace[kDTypes])(KernelTable&);
};

// The best level last. Each needs all that the one below it needs.
std::vector<Level> all_levels();

}  // namespace sepconv
