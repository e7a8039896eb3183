// Cuts a batch into parts of a few images, each of which goes through all steps before the next, so
// that a step finds in a cache what the one before left there. A sum over images is then the sum of
// the parts' sums, added in their order.
#pragma once
#include "../tuning.h"
#include "parallel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Calls f(first, count) for parts of `count` elements, in parallel where there are many.
template <class F>
void in_parts(Runner& runner, int64_t count, const F& f) {
  constexpr int64_t kPart = tuning::kPlainTaskElements;
  if (count <= kPart) {
    f(int64_t{0}, count);
    return;
  }
  const int64_t parts = shareable(ceil_div(count, kPart), count);
  parallel<float>(runner, parts, 0, [&](int64_t part, float*) {
    const int64_t first = part_start(count, parts, part);
    f(first, part_start(count, parts, part + 1) - first);
  });
}

// The units of a part: as many as fit into `room` elements, at `elements` each. A part is larger
// than the weights, which every part packs anew.
inline int64_t units_together(int64_t units, int64_t elements, int64_t weights, int64_t room) {
  return max_of(1, min_of(units, max_of(room, 4 * weights) / max_of(1, elements)));
}

// The units of the largest of even parts of `units` of at most `together`.
inline int64_t largest_part(int64_t units, int64_t together) {
  return ceil_div(units, max_of(1, ceil_div(units, together)));
}

// Calls f(first, count, whether it is the first part) for even parts of `units` of at most
// `together`. There is at least one unit.
template <class F>
void each_part(int64_t units, int64_t together, F&& f) {
  const int64_t count = ceil_div(units, together);
  for (int64_t part = 0; part < count; ++part) {
    const int64_t first = part_start(units, count, part);
    f(first, part_start(units, count, part + 1) - first, part == 0);
  }
}

// The sum of `size` elements over all parts; does nothing where `total` is null. The first part's
// sum is written to `total`; those of the others go to memory of this class, and are added from
// there.
template <class T>
class PartSum {
 public:
  PartSum(T* total, int64_t size)
      : total_(total), size_(size), room_(total == nullptr ? 0 : size) {}
  // Where a part writes its sum.
  T* get(bool first_part) const { return total_ == nullptr || first_part ? total_ : room_.get(); }
  void add(bool first_part, Runner& runner) const {
    if (first_part || total_ == nullptr) return;
    in_parts(runner, size_, [&](int64_t first, int64_t count) {
      for (int64_t i = first; i < first + count; ++i) total_[i] += room_.get()[i];
    });
  }

 private:
  T* total_;
  int64_t size_;
  Workspace<T> room_;
};

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
