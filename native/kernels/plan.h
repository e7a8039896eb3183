// How a depthwise step goes: which kernel serves a geometry, and how its work is cut into tasks.
// All of it follows from values (the geometry, the type, the level's vectors and the number of
// threads) and no memory is read, so that a plan can be made, printed and tested without running
// it.
//
// What is added up over tasks is cut by the geometry alone, and in a fixed order, so that results
// do not depend on the number of threads; where a task has whole sums, that number may decide on
// the cut.
#pragma once
#include "../plan.h"
#include "../tuning.h"
#include "correlate.h"
#include "flat_rows.h"
#include "stride2_gradient.h"
#include "sums.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Whether vectors along the channels would not be full, or not be there.
template <class T>
bool is_narrow(const Geometry& g) {
  return g.channels_first || g.c * g.m < kLanes<T>;
}

// Whether the forward pass and the kernel's gradient go along whole rows.
template <class T>
bool is_flat(const Geometry& g) {
  return !g.channels_first && g.sw == 1 && few_channels<T>(g.c, g.m) && g.wo * g.c >= kLanes<T>;
}

template <class T>
bool is_planar(const Geometry& g) {
  return is_narrow<T>(g) && !is_flat<T>(g);
}

inline Correlation forward_correlation(const Geometry& g) {
  return {g.h, g.w, g.c * g.m, g.kh, g.kw, g.sh, g.sw, g.dh, g.dw, g.pt, g.pl, g.wo};
}

// Rows of `images` images cut into bands: band `index` of image index / count.
struct Bands {
  int64_t total, unit;
  int64_t rows;   // in the largest band
  int64_t count;  // an image
  // The first row of band `index`, or the end of the one before.
  int64_t first(int64_t index) const {
    return min_of(part_start(ceil_div(total, unit), count, index) * unit, total);
  }
};

// Bands of about `wanted` rows of `total`, all as even as they come, of whole units of rows but for
// the last.
inline Bands cut_bands(int64_t total, int64_t wanted, int64_t images = 1, int64_t unit = 1) {
  const int64_t units = ceil_div(total, unit);
  int64_t count = ceil_div(units, min_of(max_of(1, wanted / unit), units));
  if (images % 4 != 0) count = shareable(count, units);
  return {total, unit, ceil_div(units, count) * unit, count};
}

// How many rows of outputs are best computed together, and bands cut between.
inline int64_t row_unit(const Geometry& g) { return g.kh > 1 && g.dh == 1 ? kSmallRows : 1; }

// Whether bands may be as low as a tile: where the rows that they share with their neighbours are
// few, and read from the image as it is.
template <class T>
bool may_be_low(const Geometry& g) {
  return g.m == 1 && !is_narrow<T>(g) && g.dh == 1 &&
         pick_small<T>(forward_correlation(g)) != nullptr;
}

// How many tasks a pass is worth. Where that makes bands or parts of channels that are less than
// whole ones to go through: one a thread if all is a matter of microseconds, some for each if it is
// not.
template <class T>
int64_t wanted_tasks(const Geometry& g, int64_t threads) {
  if (!may_be_low<T>(g)) return tuning::kTasks;
  const int64_t all = g.n * g.ho * g.wo * ceil_div(g.c, kLanes<T>) * g.kh * g.kw;
  return threads *
         min_of(max_of(1, all / tuning::kTaskVectorProducts / threads), tuning::kTasksAThread);
}

// Bands of about `rows` rows of `total`, or lower ones where that makes fewer tasks than wanted.
template <class T>
Bands cut_task_bands(const Geometry& g, int64_t threads, int64_t total, int64_t rows,
                     int64_t unit) {
  const Bands bands = cut_bands(total, rows, g.n, unit);
  const int64_t wanted = wanted_tasks<T>(g, threads);
  if (g.n * bands.count >= wanted || !may_be_low<T>(g)) return bands;
  return cut_bands(total, max_of(unit, ceil_div(total, ceil_div(wanted, max_of(1, g.n)))), g.n,
                   unit);
}

// How many parts the channels are cut into where `tasks` are fewer than wanted. Parts begin at
// whole vectors; of what comes from memory they are of a KiB a pixel or more, since it is slow at
// less.
template <class T>
int64_t channel_parts(const Geometry& g, int64_t threads, int64_t tasks) {
  const int64_t wanted = wanted_tasks<T>(g, threads);
  if (is_narrow<T>(g) || g.m != 1 || tasks >= wanted) return 1;
  const int64_t vectors = g.c / kLanes<T>;
  const int64_t pixel = g.c * static_cast<int64_t>(sizeof(T));
  const int64_t most =
      g.h * g.w * pixel > tuning::kFarBytes
          ? min_of(wanted, max_of(tuning::kPixelParts, pixel / tuning::kPixelPartBytes))
          : wanted;
  return max_of(1, min_of(most / max_of(1, tasks), vectors <= 8 ? vectors : vectors / 2));
}

// How many pieces the rows of a band are cut into where there are few bands: pieces of some
// thousand outputs, and but for flat ones long beside what they share with their neighbours, and so
// that they leave tiles of dilated outputs whole.
template <class T>
int64_t row_pieces(const Geometry& g, int64_t bands, int64_t rows) {
  if (bands >= 4) return 1;
  const bool flat = is_flat<T>(g);
  const int64_t outputs = rows * g.wo * g.c * g.m,
                least = flat ? 1 : max_of(tuning::kPieceColumns, tuning::kPieceDilations * g.dw);
  const int64_t most =
      min_of(g.wo / least, outputs / (flat ? tuning::kFlatPieceOutputs : tuning::kPieceOutputs));
  return max_of(1, min_of(tuning::kTasks / max_of(1, bands), most));
}

// Rows a band of a plane may have so that its phases stay in a cache.
template <class T>
int64_t planar_rows(const Geometry& g) {
  const int64_t row = (g.wo + (g.kw - 1) * g.dw / g.sw) * g.sh * g.sw;
  return max_of(1, max_of((g.kh - 1) * g.dh / g.sh, tuning::kPlaneElements / max_of(1, row)));
}

// --- the kernels -------------------------------------------------------------------------------

// Of the forward pass and of the kernel's gradient.
template <class T>
DepthwiseKernel pick_kernel(const Geometry& g) {
  if (is_flat<T>(g)) return DepthwiseKernel::flat;
  if (is_narrow<T>(g)) return DepthwiseKernel::planar;
  return pick_small<T>(forward_correlation(g)) != nullptr ? DepthwiseKernel::small
                                                          : DepthwiseKernel::channelwise;
}

template <class T>
DepthwiseKernel pick_input_gradient(const Geometry& g) {
  if (is_flat<T>(g) && g.sh == 1) return DepthwiseKernel::flat;
  if (is_narrow<T>(g)) return DepthwiseKernel::planar;
  return wants_stride2_gradient<T>(g) ? DepthwiseKernel::stride2 : DepthwiseKernel::channelwise;
}

// --- the cut -----------------------------------------------------------------------------------

struct DepthwisePlan {
  DepthwiseKernel kernel;
  Bands bands;
  int64_t row_pieces = 1, channel_parts = 1, groups = 0, tasks = 0;  // as in Plan
};

template <class T>
DepthwisePlan plan_forward(const Geometry& g, int64_t threads) {
  DepthwisePlan plan{.kernel = pick_kernel<T>(g), .bands = {}};
  if (g.channels_first) {
    plan.bands = cut_bands(g.ho, planar_rows<T>(g));
    plan.channel_parts = g.c;
  } else {
    const bool narrow = is_narrow<T>(g), may_split = g.m == 1 && !narrow;
    int64_t wanted = tuning::kBandElements / max_of(1, g.c * g.m * g.wo);
    wanted = max_of(wanted, may_split ? least_rows(g) : g.kh);
    plan.bands = cut_task_bands<T>(g, threads, g.ho, wanted, row_unit(g));
    const int64_t bands = g.n * plan.bands.count;
    if (plan.kernel == DepthwiseKernel::flat || may_split)
      plan.row_pieces = row_pieces<T>(g, bands, plan.bands.rows);
    if (may_split) plan.channel_parts = channel_parts<T>(g, threads, bands * plan.row_pieces);
  }
  plan.tasks = g.n * plan.bands.count * plan.row_pieces * plan.channel_parts;
  return plan;
}

// The bands of an input gradient are of rows of the input.
template <class T>
DepthwisePlan plan_input_gradient(const Geometry& g, int64_t threads) {
  const int64_t channels = g.c * g.m;
  DepthwisePlan plan{.kernel = pick_input_gradient<T>(g), .bands = {}};
  switch (plan.kernel) {
    case DepthwiseKernel::flat:
      plan.bands = cut_bands(g.h, max_of(g.kh, tuning::kBandElements / (channels * g.w)), g.n);
      break;
    case DepthwiseKernel::planar:
      plan.bands = cut_bands(g.h, planar_rows<T>(g) * g.sh);
      plan.channel_parts = g.c;
      break;
    case DepthwiseKernel::stride2:
      plan.bands = cut_task_bands<T>(g, threads, g.h,
                                     max_of(4, tuning::kBandElements / (channels * g.w)), 2);
      plan.channel_parts = channel_parts<T>(g, threads, g.n * plan.bands.count);
      break;
    default: {
      int64_t wanted = max_of(g.sh, tuning::kBandElements / (channels * g.w));
      if (g.m == 1) wanted = max_of(wanted, least_rows(g));
      plan.bands = cut_task_bands<T>(g, threads, g.h, wanted, row_unit(g) * g.sh);
      plan.channel_parts = channel_parts<T>(g, threads, g.n * plan.bands.count);
    }
  }
  plan.tasks = g.n * plan.bands.count * plan.channel_parts;
  return plan;
}

// Groups of bands have partial sums of their own, and are the geometry's alone.
template <class T>
DepthwisePlan plan_kernel_gradient(const Geometry& g, int64_t threads) {
  const int64_t channels = g.c * g.m;
  const int64_t bytes = g.kh * g.kw * channels * static_cast<int64_t>(sizeof(T));
  const int64_t wanted = tuning::kGradientBandElements / (channels * g.wo);
  DepthwisePlan plan{.kernel = pick_kernel<T>(g), .bands = {}};
  switch (plan.kernel) {
    case DepthwiseKernel::flat:
      plan.bands = cut_bands(g.ho, max_of(g.kh, wanted), g.n);
      plan.groups = group_count(g.n * plan.bands.count, bytes);
      break;
    case DepthwiseKernel::planar:
      // Channels are tasks already; with enough of them no partial sums are needed.
      plan.bands = cut_bands(g.ho, planar_rows<T>(g));
      plan.groups =
          min_of(group_count(g.n * plan.bands.count, bytes), ceil_div(tuning::kMostGroups, g.c));
      plan.channel_parts = g.c;
      break;
    default:
      plan.bands =
          cut_bands(g.ho, max_of(wanted, g.m != 1 ? g.kh : least_rows(g)), g.n, row_unit(g));
      plan.groups = group_count(g.n * plan.bands.count, bytes);
      plan.channel_parts = channel_parts<T>(g, threads, plan.groups);
  }
  plan.tasks = plan.groups * plan.channel_parts;
  return plan;
}

// Any of the three, for who wants to know it.
template <class T>
Plan plan_pass(const Geometry& g, Pass pass, int64_t threads) {
  const DepthwisePlan plan = pass == Pass::forward          ? plan_forward<T>(g, threads)
                             : pass == Pass::input_gradient ? plan_input_gradient<T>(g, threads)
                                                            : plan_kernel_gradient<T>(g, threads);
  return {.kernel = plan.kernel,
          .bands = plan.bands.count,
          .band_rows = plan.bands.rows,
          .row_pieces = plan.row_pieces,
          .channel_parts = plan.channel_parts,
          .groups = plan.groups,
          .tasks = plan.tasks};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
