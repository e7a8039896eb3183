// Chooses the first steps in a row whose outputs, of the whole batch, do not fit the caches.
#include "group.h"

#include <algorithm>

namespace sepconv::program {

Group choose_group(const std::vector<StepSize>& steps, int64_t batch, int64_t most) {
  if (batch < 2) return {};
  const int count = static_cast<int>(steps.size());
  const auto at = [&](int step) -> const StepSize& { return steps[static_cast<size_t>(step)]; };
  // Weights that are larger than the image cost more to read again than the image does.
  const auto large = [&](int step) {
    return at(step).image > most / batch && at(step).image >= at(step).weights;
  };
  int first = 0;
  while (first < count && !(at(first).by_images && large(first))) ++first;
  int end = first;
  int64_t largest = 0;
  for (int step = first; step < count && at(step).by_images; ++step) {
    if (!large(step)) continue;
    // The step after a large output reads it.
    end = step + 1 < count && at(step + 1).by_images ? step + 2 : step + 1;
    largest = std::max(largest, at(step).image);
  }
  if (first == end) return {};
  int64_t images = std::clamp<int64_t>(most / largest, 1, batch);
  while (batch % images != 0) --images;
  return images == batch ? Group{} : Group{first, end, images};
}

}  // namespace sepconv::program
