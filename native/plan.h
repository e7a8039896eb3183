// The plan of an operation: the kernels, the cut into tasks and the memory of a task, as plain
// values decided before it runs. Made by each level (kernels/plan.h), since it depends on the size
// of vectors.
#pragma once
#include <cstdint>

namespace sepconv {

// What is computed: the result, or one of its gradients. Of an ordinary convolution
// (kernels/patches.h) there is a forward pass alone; its geometry is operation.h's.
enum class Pass {
  forward,
  input_gradient,
  kernel_gradient,
  pointwise_kernel_gradient,
  ordinary_forward
};

// Which kernel serves a depthwise step: along whole rows (flat_rows.h), a channel at a time
// (planar.h), by tiles of a small kernel (small_kernel.h), by tiles at stride 2
// (stride2_gradient.h), or a vector of channels at a time (correlate.h, kernel_gradient.h).
enum class DepthwiseKernel { none, flat, planar, small, stride2, channelwise };

// What a benchmark asks of a forward pass instead of what would be chosen: the kernel of a
// depthwise step alone, and whether a separable convolution goes in two steps, or in one by tiles
// or by parts of small images. What cannot serve a geometry is not taken; the plan tells.
enum class Schedule { chosen, steps, tiles, parts };
struct Overrule {
  DepthwiseKernel kernel = DepthwiseKernel::none;
  Schedule schedule = Schedule::chosen;
};

struct Operation {
  Pass pass = Pass::forward;
  int64_t filters = 0;  // 0: the depthwise step alone
  bool packed = false;  // whether the pointwise kernel is packed already (pack_pointwise_kernel)
  Overrule overrule = {};
};

// What runs over tasks at once: a depthwise step or a 1x1 product alone; or depthwise tiles, parts
// of small images, or patches, that feed the product.
enum class StepKind { depthwise, pointwise, fused_tiles, fused_parts, patches };

struct PlanStep {
  StepKind kind = StepKind::depthwise;
  DepthwiseKernel kernel = DepthwiseKernel::none;
  // Bands of rows of an image, each cut along its rows into pieces: the tiles of the depthwise
  // step. Of a product, bands are of pixels, of all images where channels are last.
  int64_t bands = 1, band_rows = 0;  // rows of the largest
  int64_t row_pieces = 1;
  int64_t channel_parts = 1;  // tasks that share a band's channels
  int64_t filter_parts = 1;   // tasks that share a band's filters
  int64_t groups = 0;  // of bands, each with partial sums of its own; 0: nothing is summed up
  int64_t tasks = 0;
  int64_t scratch_bytes = 0;  // of a task
  int64_t kept_bytes = 0;     // that a thread keeps from task to task
};

// One step after the other.
inline constexpr int kMostSteps = 2;
struct Plan {
  int64_t images = 0;  // of the batch that go through the steps at a time
  int64_t count = 0;   // of steps
  PlanStep steps[kMostSteps] = {};
};

}  // namespace sepconv
