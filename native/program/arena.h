// Places in one piece of memory for arrays that live for a while, so that those that are alive
// together do not overlap.
#pragma once
#include <cstdint>
#include <vector>

namespace sepconv::program {

struct Lifetime {
  int64_t bytes;
  int first, last;     // steps, both included
  int64_t offset = 0;  // where it was put
};

// Sets the offsets, multiples of 64, and gives the bytes of the whole.
int64_t place(std::vector<Lifetime>& arrays);

}  // namespace sepconv::program
