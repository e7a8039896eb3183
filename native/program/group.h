// Groups of images: the steps of a program that a large batch goes through a few images at a time,
// so that what lies between them stays in the caches.
#pragma once
#include <cstdint>
#include <vector>

#include "../api.h"

namespace sepconv::program {

// What is known of a step when its group is chosen.
struct StepSize {
  bool by_images;   // as Call has it; and its inputs are of the batch's size
  int64_t image;    // bytes of its output, of one image
  int64_t weights;  // bytes, which every group reads again
};

// Steps [first, end) go `images` at a time; none where `first` is `end`. `images` divides the
// batch.
struct Group {
  int first = 0, end = 0;
  int64_t images = 0;
  bool has(int step) const { return first <= step && step < end; }
};

// The steps that go together. `most` is how many bytes of an output, of the whole batch, the caches
// hold. The choice follows from sizes alone, since a step may give other last bits for another
// number of images.
SEPCONV_API Group choose_group(const std::vector<StepSize>& steps, int64_t batch, int64_t most);

}  // namespace sepconv::program
