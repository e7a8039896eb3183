// The plan of a depthwise step: which kernel serves a geometry, how the work is cut into tasks, and
// the memory that a task takes. It depends on values only (the geometry, the type, the level's
// vectors and the number of threads) and reads no memory, so that a plan can be made, printed and
// tested without running it.
//
// Work that is summed over tasks is cut by the geometry alone, and summed in a fixed order, so that
// results do not depend on the number of threads. Where a task computes whole sums, that number may
// decide the cut.
#pragma once
#include "../plan.h"
#include "../tuning.h"
#include "correlate.h"
#include "cut.h"
#include "flat_rows.h"
#include "gradient_phase.h"
#include "planar.h"
#include "small_kernel_gradient.h"
#include "sums.h"
#include "widened.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// --- what a geometry is good for -----------------------------------------------------------------

// Whether channels cannot fill vectors: they come first, or there are fewer than lanes.
template <class T>
bool is_narrow(const Geometry& g) {
  return g.channels_first || g.c * g.m < kLanes<T>;
}

// Whether a depthwise step of tensors with the channels first works on copies with the channels
// last: planes are so small that a kernel that takes one at a time spends its time on their edges.
// Of few images, one is copied by several threads, which then read what the others wrote. A kernel
// that is asked for is given the tensors as they are.
template <class T>
bool is_turned(const Geometry& g, DepthwiseKernel wanted = DepthwiseKernel::none) {
  const int64_t pixels = g.h * g.w;
  const int64_t most =
      g.n < tuning::kTurnedImages ? tuning::kTurnedPixelsOfFew : tuning::kTurnedPixels;
  return wanted == DepthwiseKernel::none && g.channels_first && g.m == 1 &&
         g.c >= kLanes<Real<T>> && 0 < pixels && pixels <= most;
}

// The same step of tensors with the channels last.
inline Geometry turned(Geometry g) {
  g.channels_first = false;
  return g;
}

// Whether the forward pass and the kernel's gradient take whole rows (flat_rows.h): few channels,
// at stride 1 along the width.
template <class T>
bool is_flat(const Geometry& g) {
  const bool few = g.c * g.m < 128 && (g.m > 1 || g.c < kLanes<T>);
  return !g.channels_first && g.sw == 1 && few && g.wo * g.c >= kLanes<T>;
}

// Whether the input gradient is computed by stride2_gradient.h, whose weights need 32 registers.
template <class T>
bool wants_stride2_gradient(const Geometry& g) {
  return sizeof(T) == 4 && kRegisters == 32 && g.kh == 3 && g.kw == 3 && g.sh == 2 && g.sw == 2 &&
         g.dh == 1 && g.dw == 1 && g.m == 1;
}

// Whether parts of the channels can be computed separately.
template <class T>
bool may_split_channels(const Geometry& g) {
  return g.m == 1 && (g.channels_first || !is_narrow<T>(g));
}

inline Correlation forward_correlation(const Geometry& g) {
  const int64_t channels = g.c * g.m;
  return {g.h, g.w, channels, g.kh, g.kw, g.sh, g.sw, g.dh, g.dw, g.pt, g.pl, g.wo, channels};
}

// The rows of outputs that are best computed together; bands are whole multiples of it.
inline int64_t row_unit(const Geometry& g) { return g.kh > 1 && g.dh == 1 ? kSmallRows : 1; }

// Whether bands may be as low as a register tile: where they share few rows with their neighbours,
// and read the image itself.
template <class T>
bool may_be_low(const Geometry& g) {
  return g.m == 1 && !is_narrow<T>(g) && g.dh == 1 &&
         pick_small<T>(forward_correlation(g)) != nullptr;
}

// The number of tasks that a pass is worth. Only where low bands and parts of the channels cost
// little may it be more than kTasks: one for each thread where the pass takes microseconds, several
// for each where it takes longer.
template <class T>
int64_t wanted_tasks(const Geometry& g, int64_t threads) {
  if (!may_be_low<T>(g)) return tuning::kTasks;
  const int64_t all = g.n * g.ho * g.wo * ceil_div(g.c, kLanes<T>) * g.kh * g.kw;
  return threads *
         min_of(max_of(1, all / tuning::kTaskVectorProducts / threads), tuning::kTasksAThread);
}

// Bands of about `rows` rows of `total`; lower bands where these would be fewer tasks than wanted.
template <class T>
Cut cut_task_bands(const Geometry& g, int64_t threads, int64_t total, int64_t rows, int64_t unit) {
  const Cut bands = cut_bands(total, rows, g.n, unit);
  const int64_t wanted = wanted_tasks<T>(g, threads);
  if (g.n * bands.count >= wanted || !may_be_low<T>(g)) return bands;
  return cut_bands(total, max_of(unit, ceil_div(total, ceil_div(wanted, max_of(1, g.n)))), g.n,
                   unit);
}

// The number of parts that the channels are cut into where `tasks` are fewer than wanted. Parts
// begin at whole vectors. Where the image comes from memory, a part is a KiB of a pixel or more,
// since shorter reads are slow.
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

// The number of pieces that the rows of a band are cut into where there are few bands. A piece has
// some thousand outputs. Except in the flat kernel it is long compared with the inputs that it
// shares with its neighbours, and long enough for whole tiles of dilated outputs.
template <class T>
int64_t row_pieces(const Geometry& g, bool flat, int64_t bands, int64_t rows) {
  if (bands >= 4) return 1;
  const int64_t outputs = rows * g.wo * g.c * g.m,
                least = flat ? 1 : max_of(tuning::kPieceColumns, tuning::kPieceDilations * g.dw);
  const int64_t most =
      min_of(g.wo / least, outputs / (flat ? tuning::kFlatPieceOutputs : tuning::kPieceOutputs));
  return max_of(1, min_of(tuning::kTasks / max_of(1, bands), most));
}

// The most rows of a band of a plane whose phases stay in a cache.
template <class T>
int64_t planar_rows(const Geometry& g) {
  const int64_t row = (g.wo + (g.kw - 1) * g.dw / g.sw) * g.sh * g.sw;
  return max_of(1, max_of((g.kh - 1) * g.dh / g.sh, tuning::kPlaneElements / max_of(1, row)));
}

// The rows of a band for which the rows that it shares with its neighbours cost little.
inline int64_t least_rows(const Geometry& g) { return 2 * ((g.kh - 1) * g.dh + 1); }

// Whether a kernel can compute the forward pass at all.
template <class T>
bool can_serve(const Geometry& g, DepthwiseKernel kernel) {
  switch (kernel) {
    case DepthwiseKernel::flat:
      return !g.channels_first && g.sw == 1 && g.wo * g.c >= kLanes<T>;
    case DepthwiseKernel::planar:
      return true;
    case DepthwiseKernel::small:
      return !is_narrow<T>(g) && pick_small<T>(forward_correlation(g)) != nullptr;
    case DepthwiseKernel::channelwise:
      return !is_narrow<T>(g);
    default:
      return false;
  }
}

// The kernel of the forward pass and of the kernel's gradient.
template <class T>
DepthwiseKernel pick_kernel(const Geometry& g) {
  if (is_flat<T>(g)) return DepthwiseKernel::flat;
  if (is_narrow<T>(g)) return DepthwiseKernel::planar;
  return pick_small<T>(forward_correlation(g)) != nullptr ? DepthwiseKernel::small
                                                          : DepthwiseKernel::channelwise;
}

// --- what a band needs ---------------------------------------------------------------------------

// Whether a box of these rows and columns is better computed from a strip: a copy of its window,
// one vector of channels, padding included. That pays where many outputs have taps in the padding,
// and where pixels are so far apart that the rows of a window fall on the same few sets of the
// first cache. With large dilation or few rows the copy costs too much.
template <class S>
bool wants_strip(const Correlation& g, bool small, int64_t rows, int64_t q0, int64_t q1) {
  if (g.dh >= 4 || g.dw >= 4 || g.kh * g.kw < 4) return false;
  if (small) return wants_copy<S>(g);
  const int64_t reach = (g.kh - 1) * g.dh + 1;
  if ((rows - 1) * g.sh + reach > 2 * rows * g.sh + g.kh * g.kw / 4) return false;
  Range inside = outputs_inside(g.out_w, g.kw, g.sw, g.dw, g.pl, g.in_w);
  const int64_t edge = max_of(0, inside.first - q0) + max_of(0, q1 - inside.last);
  const int64_t pixel = g.channels * static_cast<int64_t>(sizeof(S));
  const bool conflicts = pixel % 512 == 0;
  return edge * 12 > q1 - q0 || conflicts;
}

// Of boxes of at most `rows` rows, and of columns [q0, q1), by tiles of a small kernel or not. Only
// the tiles read images of a half type.
template <class S>
CorrelationPlan plan_correlation(const Correlation& g, bool small, int64_t rows, int64_t q0,
                                 int64_t q1) {
  if (!wants_strip<S>(g, small, rows, q0, q1)) return {small, 0};
  const Window w = window_of(g, 0, rows, q0, q1);
  return {small, small ? copied_elements<S>(g, w) : strip_elements<Real<S>>(g, w)};
}

template <class T>
FlatSizes flat_sizes(const Geometry& g) {
  return {g.h, g.w, g.c, 1, g.m, g.kh, g.kw, g.sh, g.dh, g.dw, g.pt, g.pl, g.wo};
}

// How bands of at most `rows` rows are computed. All sizes but the first two are in elements, of
// Real<S> where tensors are of S.
struct BandPlan {
  DepthwiseKernel kernel = DepthwiseKernel::none;
  int64_t rows = 0;
  CorrelationPlan correlation = {};  // of a small or channelwise kernel
  int64_t expanded = 0;              // scratch for a band with every channel repeated m times
  WidenedPlan widened = {};          // of a half type that the kernel does not read itself
  int64_t scratch = 0;               // in all
  int64_t spread = 0;                // the weights as flat rows read them
};

// Of the forward pass, where bands have at most `columns` columns.
template <class S>
BandPlan plan_band(const Geometry& g, DepthwiseKernel kernel, int64_t rows, int64_t columns) {
  using T = Real<S>;
  const bool small = kernel == DepthwiseKernel::small;
  const int64_t channels = g.c * g.m;
  Correlation correlation = forward_correlation(g);
  BandPlan band{.kernel = kernel, .rows = rows};
  switch (kernel) {
    case DepthwiseKernel::flat:
      band.scratch = FlatRows<T>::template scratch<S>(flat_sizes<T>(g), rows, columns);
      if (kIsHalf<S>) {
        band.widened = {.together = channels,
                        .window = band.scratch,
                        .tile = rows * min_of(columns, g.wo) * channels};
        band.scratch = band.widened.elements();
      }
      band.spread = FlatRows<T>::weights(flat_sizes<T>(g));
      break;
    case DepthwiseKernel::planar:
      band.scratch = forward_scratch(PlanarSizes<T>(g, rows));
      break;
    default:
      if (small && g.m == 1) {
        band.correlation = plan_correlation<S>(correlation, small, rows, 0, columns);
        band.scratch = band.correlation.strip;
        break;
      }
      if (kIsHalf<S>) {
        band.widened = plan_widened<T>(
            channels, g.m != 1, columns, (g.kw - 1) * g.dw / g.sw, [&](int64_t here) {
              const Window window = window_of(correlation, 0, rows, 0, here);
              return WidenedPixels{most_pixels(correlation, window), rows * here};
            });
        correlation.channels = widened_pitch<T>(band.widened.together);
      } else if (g.m != 1) {
        band.expanded = min_of(g.h, (rows - 1) * g.sh + (g.kh - 1) * g.dh + 1) * g.w * channels;
      }
      band.correlation = plan_correlation<T>(correlation, small, rows, 0, columns);
      band.scratch = band.expanded + band.widened.elements() + band.correlation.strip;
  }
  return band;
}

// Of a phase of the input gradient, in bands of at most `rows` rows of the input. `widened` is how
// many channels of a half type are widened together, 0 where dy itself is read.
template <class S>
CorrelationPlan plan_phase(const Geometry& g, const GradientPhase& phase, int64_t rows,
                           int64_t widened) {
  using T = Real<S>;
  if (phase.q.first >= phase.q.last) return {};
  Correlation correlation = phase.correlation;
  const bool small = pick_small<T>(correlation) != nullptr;
  rows = ceil_div(rows, g.sh);
  if (widened == 0)
    return plan_correlation<S>(correlation, small, rows, phase.q.first, phase.q.last);
  correlation.channels = widened_pitch<T>(widened);
  return plan_correlation<T>(correlation, small, rows, phase.q.first, phase.q.last);
}

// --- a pass --------------------------------------------------------------------------------------

struct DepthwisePlan {
  Cut bands = {};                                                    // of an image
  int64_t row_pieces = 1, channel_parts = 1, groups = 0, tasks = 0;  // as in PlanStep
  BandPlan band = {};
  int64_t scratch = 0, kept = 0;  // elements of a task, and those that a thread keeps
};

// The forward pass by the kernel `wanted` if that is given and possible, else by the best one.
template <class S>
DepthwisePlan plan_depthwise_forward(const Geometry& g, int64_t threads,
                                     DepthwiseKernel wanted = DepthwiseKernel::none) {
  using T = Real<S>;
  const DepthwiseKernel kernel = can_serve<T>(g, wanted) ? wanted : pick_kernel<T>(g);
  DepthwisePlan plan;
  if (g.channels_first) {
    plan.bands = cut_bands(g.ho, planar_rows<T>(g));
    plan.channel_parts = g.c;
  } else {
    const bool flat = kernel == DepthwiseKernel::flat;
    const bool may_split = g.m == 1 && !flat && kernel != DepthwiseKernel::planar;
    int64_t rows = tuning::kBandElements / max_of(1, g.c * g.m * g.wo);
    rows = max_of(rows, may_split ? least_rows(g) : g.kh);
    plan.bands = cut_task_bands<T>(g, threads, g.ho, rows, row_unit(g));
    const int64_t bands = g.n * plan.bands.count;
    if (flat || may_split) plan.row_pieces = row_pieces<T>(g, flat, bands, plan.bands.most);
    if (may_split) plan.channel_parts = channel_parts<T>(g, threads, bands * plan.row_pieces);
  }
  plan.band = plan_band<S>(g, kernel, plan.bands.most, g.wo);
  plan.tasks = g.n * plan.bands.count * plan.row_pieces * plan.channel_parts;
  plan.scratch = plan.band.scratch;
  plan.kept = plan.band.spread;
  return plan;
}

// Of flat rows, which see dy as an image with the results of each channel side by side.
inline FlatSizes gradient_flat_sizes(const Geometry& g) {
  return {g.ho,
          g.wo,
          g.c,
          g.m,
          1,
          g.kh,
          g.kw,
          1,
          g.dh,
          g.dw,
          (g.kh - 1) * g.dh - g.pt,
          (g.kw - 1) * g.dw - g.pl,
          g.w};
}

// The output rows that see input rows [h0, h1), and the columns that see columns [w0, w1).
inline Range output_rows(const Geometry& g, int64_t h0, int64_t h1) {
  const int64_t first = max_of(0, ceil_div(h0 + g.pt - (g.kh - 1) * g.dh, g.sh));
  return {first, max_of(first, min_of(g.ho, floor_div(h1 - 1 + g.pt, g.sh) + 1))};
}
inline Range output_columns(const Geometry& g, int64_t w0, int64_t w1) {
  const int64_t first = max_of(0, ceil_div(w0 + g.pl - (g.kw - 1) * g.dw, g.sw));
  return {first, max_of(first, min_of(g.wo, floor_div(w1 - 1 + g.pl, g.sw) + 1))};
}

// The most of them that so many rows or columns have.
inline int64_t most_output_rows(const Geometry& g, int64_t rows) {
  return min_of(g.ho, (rows - 1 + (g.kh - 1) * g.dh) / g.sh + 2);
}
inline int64_t most_output_columns(const Geometry& g, int64_t columns) {
  return min_of(g.wo, (columns - 1 + (g.kw - 1) * g.dw) / g.sw + 2);
}

// Whether all phases are of small kernels.
template <class T>
bool has_small_phases(const Geometry& g) {
  for (int64_t a = 0; a < g.sh; ++a)
    for (int64_t b = 0; b < g.sw; ++b)
      if (pick_small<T>(gradient_phase(g, a, b).correlation) == nullptr) return false;
  return true;
}

// The input gradient as one correlation a phase, by vectors of channels.
template <class S>
void plan_gradient_phases(const Geometry& g, int64_t threads, DepthwisePlan& plan) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m;
  int64_t wanted = max_of(g.sh, tuning::kBandElements / (channels * g.w));
  if (g.m == 1) wanted = max_of(wanted, least_rows(g));
  plan.bands = cut_task_bands<T>(g, threads, g.h, wanted, row_unit(g) * g.sh);
  plan.channel_parts = channel_parts<T>(g, threads, g.n * plan.bands.count);
  if (kIsHalf<S> && !(g.m == 1 && has_small_phases<T>(g)))
    plan.band.widened =
        plan_widened<T>(channels, g.m != 1, g.w, (g.kw - 1) * g.dw, [&](int64_t columns) {
          return WidenedPixels{
              most_output_rows(g, plan.bands.most) * most_output_columns(g, columns),
              plan.bands.most * columns};
        });
  bool small = true;
  for (int64_t a = 0; a < g.sh; ++a)
    for (int64_t b = 0; b < g.sw; ++b) {
      const CorrelationPlan phase =
          plan_phase<S>(g, gradient_phase(g, a, b), plan.bands.most, plan.band.widened.together);
      small = small && phase.small;
      plan.band.correlation.strip = max_of(plan.band.correlation.strip, phase.strip);
    }
  plan.band.kernel = small ? DepthwiseKernel::small : DepthwiseKernel::channelwise;
  // Of a half type, the tile has every channel m times, and these are the sums.
  const int64_t expanded = kIsHalf<S> ? plan.band.widened.columns * g.c : g.w * channels;
  plan.band.expanded = g.m == 1 ? 0 : plan.bands.most * expanded;
  plan.scratch = plan.band.expanded + plan.band.widened.elements() + plan.band.correlation.strip;
}

// Bands of an input gradient consist of rows of the input.
template <class S>
DepthwisePlan plan_input_gradient(const Geometry& g, int64_t threads) {
  using T = Real<S>;
  const int64_t rows = tuning::kBandElements / (g.c * g.m * g.w);
  DepthwisePlan plan;
  if (is_flat<T>(g) && g.sh == 1) {
    const FlatSizes sizes = gradient_flat_sizes(g);
    plan.bands = cut_bands(g.h, max_of(g.kh, rows), g.n);
    plan.band.kernel = DepthwiseKernel::flat;
    plan.scratch = FlatRows<T>::template scratch<S>(sizes, plan.bands.most, g.w);
    if (kIsHalf<S>) {
      plan.band.widened = {
          .together = g.c, .window = plan.scratch, .tile = plan.bands.most * g.w * g.c};
      plan.scratch = plan.band.widened.elements();
    }
    plan.kept = FlatRows<T>::weights(sizes);
  } else if (is_narrow<T>(g)) {
    plan.bands = cut_bands(g.h, planar_rows<T>(g) * g.sh);
    plan.channel_parts = g.c;
    plan.band.kernel = DepthwiseKernel::planar;
    // The rows of outputs that see the largest band.
    plan.band.rows = most_output_rows(g, plan.bands.most);
    plan.scratch = gradient_scratch(PlanarSizes<T>(g, plan.band.rows));
  } else if (wants_stride2_gradient<T>(g)) {
    plan.bands = cut_task_bands<T>(g, threads, g.h, max_of(4, rows), 2);
    plan.channel_parts = channel_parts<T>(g, threads, g.n * plan.bands.count);
    plan.band.kernel = DepthwiseKernel::stride2;
  } else {
    plan_gradient_phases<S>(g, threads, plan);
  }
  plan.tasks = g.n * plan.bands.count * plan.channel_parts;
  return plan;
}

// Of a half type, windows of both tensors are widened.
template <class S>
void plan_gradient_windows(const Geometry& g, DepthwisePlan& plan) {
  using T = Real<S>;
  const int64_t rows = plan.bands.most;
  Correlation correlation = forward_correlation(g);
  BandPlan& band = plan.band;
  band.widened =
      plan_widened<T>(g.c * g.m, g.m != 1, g.wo, (g.kw - 1) * g.dw / g.sw, [&](int64_t columns) {
        const Window window = window_of(correlation, 0, rows, 0, columns);
        return WidenedPixels{most_pixels(correlation, window) + rows * columns, 0};
      });
  correlation.channels = widened_pitch<T>(band.widened.together);
  band.correlation = plan_correlation<T>(correlation, band.correlation.small, rows, 0, g.wo);
  band.scratch = band.widened.elements() + band.correlation.strip;
}

// Each group of bands has a partial sum; groups depend on the geometry alone.
template <class S>
DepthwisePlan plan_kernel_gradient(const Geometry& g, int64_t threads) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m, taps = g.kh * g.kw;
  const int64_t bytes = taps * channels * static_cast<int64_t>(sizeof(T));
  const int64_t wanted = tuning::kGradientBandElements / (channels * g.wo);
  DepthwiseKernel kernel = pick_kernel<T>(g);
  if (kernel == DepthwiseKernel::small && pick_small_gradient<T>(forward_correlation(g)) == nullptr)
    kernel = DepthwiseKernel::channelwise;
  DepthwisePlan plan;
  switch (kernel) {
    case DepthwiseKernel::flat:
      plan.bands = cut_bands(g.ho, max_of(g.kh, wanted), g.n);
      plan.band = plan_band<S>(g, kernel, plan.bands.most, g.wo);
      plan.groups = group_count(g.n * plan.bands.count, bytes);
      plan.scratch = flat_gradient_scratch<T>(flat_sizes<T>(g), plan.bands.most);
      break;
    case DepthwiseKernel::planar:
      // Every channel is a task; with enough channels no partial sums are needed.
      plan.bands = cut_bands(g.ho, planar_rows<T>(g));
      plan.band = plan_band<S>(g, kernel, plan.bands.most, g.wo);
      plan.groups =
          min_of(group_count(g.n * plan.bands.count, bytes), ceil_div(tuning::kMostGroups, g.c));
      plan.channel_parts = g.c;
      plan.scratch = gradient_scratch(PlanarSizes<T>(g, plan.bands.most));
      break;
    default:
      plan.bands =
          cut_bands(g.ho, max_of(wanted, g.m != 1 ? g.kh : least_rows(g)), g.n, row_unit(g));
      plan.band = plan_band<S>(g, kernel, plan.bands.most, g.wo);
      if (plan.band.widened.together != 0) plan_gradient_windows<S>(g, plan);
      plan.groups = group_count(g.n * plan.bands.count, bytes);
      plan.channel_parts = channel_parts<T>(g, threads, plan.groups);
      plan.scratch = taps * kLanes<T> + plan.band.scratch;
  }
  plan.tasks = plan.groups * plan.channel_parts;
  return plan;
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
