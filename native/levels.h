// The instruction-set levels of this build, which of them run on this processor, and the kernels
// that a level has: its own and those that it inherits.
#pragma once
#include <cstddef>
#include <vector>

#include "kernels/array_table.h"
#include "kernels/int8_table.h"
#include "kernels/kernel_table.h"

namespace sepconv {

inline constexpr int kDTypes = 4;
inline constexpr int kArrayDTypes = 5;  // float32 to uint8; of float16 there are none

struct Level {
  const char* name;
  bool runnable;
  // By DType. Puts the level's functions into a table that holds those of the level below, which
  // stay where the level has none of its own. Null where it has none at all for the type.
  void (*replace[kDTypes])(KernelTable&);
  void (*replace_arrays[kArrayDTypes])(ArrayTable&) = {};
  void (*replace_int8)(Int8Table&) = nullptr;
};

// The best level is the last. Each needs everything that the one below it needs.
std::vector<Level> all_levels();

// A level's kernels, by DType, and those of int8.
struct Kernels {
  const char* name;
  KernelTable tables[kDTypes];
  ArrayTable arrays[kArrayDTypes];
  Int8Table int8;
};

// The kernels of level `index`; where a level has none of its own, those of the nearest level
// below.
inline Kernels kernels_of(const std::vector<Level>& levels, std::size_t index) {
  Kernels kernels{levels[index].name, {}, {}, {}};
  for (std::size_t i = 0; i <= index; ++i) {
    for (int dtype = 0; dtype < kDTypes; ++dtype)
      if (levels[i].replace[dtype] != nullptr) levels[i].replace[dtype](kernels.tables[dtype]);
    for (int dtype = 0; dtype < kArrayDTypes; ++dtype)
      if (levels[i].replace_arrays[dtype] != nullptr)
        levels[i].replace_arrays[dtype](kernels.arrays[dtype]);
    if (levels[i].replace_int8 != nullptr) levels[i].replace_int8(kernels.int8);
  }
  return kernels;
}

}  // namespace sepconv
