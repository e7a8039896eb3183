// Puts the largest array first, each as low as those that it meets allow.
#include "arena.h"

#include <algorithm>
#include <numeric>

namespace sepconv::program {

int64_t place(std::vector<Lifetime>& arrays) {
  std::vector<size_t> order(arrays.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return arrays[a].bytes > arrays[b].bytes; });
  std::vector<const Lifetime*> placed, met;
  int64_t whole = 0;
  for (const size_t index : order) {
    Lifetime& here = arrays[index];
    const int64_t bytes = (here.bytes + 63) / 64 * 64;
    met.clear();
    for (const Lifetime* other : placed)
      if (other->first <= here.last && here.first <= other->last) met.push_back(other);
    std::sort(met.begin(), met.end(),
              [](const Lifetime* a, const Lifetime* b) { return a->offset < b->offset; });
    here.offset = 0;
    for (const Lifetime* other : met) {
      if (other->offset >= here.offset + bytes) break;
      here.offset = std::max(here.offset, other->offset + (other->bytes + 63) / 64 * 64);
    }
    placed.push_back(&here);
    whole = std::max(whole, here.offset + bytes);
  }
  return whole;
}

}  // namespace sepconv::program
