// What is decided about a depthwise step before any of it runs, as plain values. Made by each level
// (kernels/plan.h), since it depends on the size of vectors.
#pragma once
#include <cstdint>

namespace sepconv {

enum class Pass { forward, input_gradient, kernel_gradient };

// Which kernel serves a geometry: along whole rows (flat_rows.h), a channel at a time (planar.h),
// by tiles of a small kernel (small_kernel.h), by tiles at stride 2 (stride2_gradient.h), or a
// vector of channels at a time (correlate.h, kernel_gradient.h).
enum class DepthwiseKernel { flat, planar, small, stride2, channelwise };

struct Plan {
  DepthwiseKernel kernel;
  int64_t bands, band_rows;  // of an image, and rows of the largest
  int64_t row_pieces;        // of a band, along its rows
  int64_t channel_parts;     // tasks that share a band's channels
  int64_t groups;            // of bands, each with partial sums of its own; 0: nothing is summed up
  int64_t tasks;
};

}  // namespace sepconv
