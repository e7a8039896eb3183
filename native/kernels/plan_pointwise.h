// The plan of a 1x1 convolution: the tiles of pixels, parts of filters and groups of partial sums
// that its tasks are, and the memory that a task takes. As in plan_depthwise.h, it follows from
// sizes and reads no memory; work that is summed over tasks is cut by sizes alone and summed in a
// fixed order. T is the type of the tensors; scratch and kept memory are counted in elements of
// Multiplied<T>.
#pragma once
#include "../operation.h"
#include "../tuning.h"
#include "cut.h"
#include "gemm.h"
#include "sums.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Cuts the rows of a product into tiles of whole micro-kernels: smaller tiles where there are many,
// so that the last tasks leave no thread idle for long, and at least `least` where there are rows
// enough.
inline Cut cut_rows(int64_t rows, int64_t least = 1) {
  const int64_t units = ceil_div(rows, kRows);
  const bool many = rows >= tuning::kManyTiles * tuning::kTilePixels;
  const int64_t wanted = many ? tuning::kTilePixels / 2 : tuning::kTilePixels;
  const int64_t count = max_of(ceil_div(units, wanted / kRows), min_of(least, units));
  return cut_into(rows, shareable(count, units), kRows);
}

// The outputs of a [depth, outputs] matrix of weights cut into parts of whole panels, so small
// that a thread keeps one in its second cache: at least `wanted` of them, where there are panels
// enough.
template <class T>
Cut cut_outputs(int64_t depth, int64_t outputs, int64_t wanted) {
  using M = Multiplied<T>;
  const int64_t panel_bytes =
      packed_elements<M>(max_of(1, depth), kPanel<M>) * static_cast<int64_t>(sizeof(M));
  const int64_t most = max_of(1, tuning::kOwnWeightBytes / panel_bytes), all = panels<M>(outputs);
  const int64_t count = max_of(1, max_of(ceil_div(all, most), min_of(wanted, all)));
  return cut_into(outputs, count, kPanel<M>);
}

// Elements of a part that a thread packs for itself and keeps; none where weights are packed.
template <class T>
int64_t kept_weights(const Cut& filter_parts, int64_t depth, bool packed) {
  return packed ? 0 : max_of(1, packed_elements<Multiplied<T>>(depth, filter_parts.most));
}

// Where rows of A are converted before a product reads them: elements from one of them to the next,
// which do not lie on one set of the first cache; and how many rows a task converts at a time, so
// that they stay in the second cache.
template <class T>
struct ConvertedRows {
  using M = Multiplied<T>;
  static constexpr bool kNeeded = !kSame<M, T>;
  int64_t pitch, most;
  ConvertedRows(int64_t depth, int64_t rows) {
    constexpr int64_t kBytes = sizeof(M);
    pitch = depth * kBytes % 1024 == 0 ? depth + kLanes<M> : depth;
    const int64_t fit = tuning::kConvertedBytes / kBytes / max_of(1, pitch);
    most = min_of(rows, max_of(kRows, fit / kRows * kRows));
  }
  int64_t elements() const { return kNeeded ? most * pitch : 0; }
};

struct ProductPlan {
  Cut tiles;           // of pixels: of all images, or where channels come first of each
  Cut filter_parts;    // of outputs
  bool ahead = false;  // whether a tile of x is asked for ahead of its use
  int64_t tasks = 0;
  int64_t scratch = 0, kept = 0;  // elements of a task, and those that a thread keeps
};

// Of `rows` pixels, channels last. `packed` says whether weights are packed already.
template <class T>
ProductPlan plan_product_last(int64_t rows, int64_t depth, int64_t outputs, bool packed) {
  // With more rows than outputs, rows are cut: each thread then packs all weights, which costs less
  // than reading all of x. So are they where weights are packed already and there are several
  // tiles: the thread that computes some rows of an image in one layer then has them in its core's
  // cache for the next layer, whose convolution of small windows is cut by rows, too.
  constexpr int64_t kMany = 1 << 20;  // so that the product cannot overflow
  const int64_t wanted = min_of(
      tuning::kTasks, (min_of(rows, kMany) * min_of(depth, kMany) * min_of(outputs, kMany)) >>
                          tuning::kTaskProductsLog2);
  const bool tall = outputs <= rows || (packed && rows >= tuning::kTilePixels);
  ProductPlan plan;
  plan.filter_parts =
      cut_outputs<T>(depth, outputs, tall ? 1 : wanted / max_of(1, cut_rows(rows).count));
  // Two threads cannot share an odd number of parts evenly, unless the rows are cut too.
  plan.tiles = cut_rows(rows, tall ? min_of(wanted, 8) : plan.filter_parts.count % 2 == 0 ? 1 : 2);
  plan.ahead = rows * depth * static_cast<int64_t>(sizeof(T)) > tuning::kFarBytes;
  plan.tasks = plan.tiles.count * plan.filter_parts.count;
  plan.scratch = ConvertedRows<T>(depth, plan.tiles.most).elements();
  plan.kept = kept_weights<T>(plan.filter_parts, depth, packed);
  return plan;
}

// Of `images` images of `pixels` pixels, channels first: a task packs its pixels.
template <class T>
ProductPlan plan_product_first(int64_t images, int64_t pixels, int64_t depth, int64_t outputs) {
  ProductPlan plan;
  plan.tiles = cut_into(pixels, ceil_div(pixels, 2 * tuning::kTilePixels));
  const int64_t tiles = images * plan.tiles.count;
  // Outputs are cut too, into parts of some micro-kernels' rows at least, to make enough tasks.
  const int64_t parts = max_of(1, min_of(tuning::kTasks / max_of(1, tiles), outputs / (4 * kRows)));
  plan.filter_parts = cut_into(outputs, parts);
  plan.tasks = tiles * parts;
  plan.scratch = packed_elements<Multiplied<T>>(depth, plan.tiles.most);
  return plan;
}

template <class T>
ProductPlan plan_product(int64_t images, int64_t pixels, bool channels_first, int64_t depth,
                         int64_t outputs, bool packed) {
  return channels_first ? plan_product_first<T>(images, pixels, depth, outputs)
                        : plan_product_last<T>(images * pixels, depth, outputs, packed);
}

// --- the kernel's gradient -----------------------------------------------------------------------

// Pixels whose product is added to a kernel's gradient at a time.
inline constexpr int64_t kGradientPixels = 4 * tuning::kTilePixels;

// How the gradient of a [channels, filters] kernel is cut: `groups` of pixels, each with a partial
// sum, times `channel_parts`.
struct GradientCut {
  int64_t groups, channel_parts;
};

// The cut for `units` of work over `pixels` pixels. Results depend on the groups, so their number
// does not depend on the threads; it is small, so that adding them up costs little. Each part of
// the channels reads all of dy, so there are only as many as keep the threads busy, to the end
// where possible.
template <class T>
GradientCut gradient_cut(int64_t units, int64_t pixels, int64_t channels, int64_t filters,
                         bool may_split, int64_t threads) {
  const int64_t bytes = channels * filters * static_cast<int64_t>(sizeof(Real<T>));
  const int64_t most = group_count(min_of(units, pixels / tuning::kGroupPixels), bytes);
  int64_t groups = 1;
  while (2 * groups <= most) groups *= 2;
  if (!may_split) return {groups, 1};
  int64_t parts = min_of(ceil_div(4 * threads, groups), channels / (16 * kRows));
  if (groups * parts < 2 * threads)
    parts = min_of(ceil_div(2 * threads, groups), channels / kPanel<Multiplied<T>>);
  for (int64_t even = parts; groups * even >= threads; --even)
    if (groups * even % threads == 0) return {groups, even};
  return {groups, max_of(1, parts)};
}

// Scratch elements of add_pointwise_gradient (pointwise.h).
template <class T>
int64_t gradient_elements(int64_t channels, int64_t filters, int64_t pixels, bool channels_first) {
  using M = Multiplied<T>;
  return packed_elements<M>(pixels, channels_first ? filters : kPanel<M>) +
         packed_rows_elements<M>(channels, pixels);
}

// The channels of the largest of `parts` parts; the last part has those that do not fill a vector.
template <class T>
int64_t largest_channel_part(int64_t channels, int64_t parts) {
  return parts == 1 ? channels : ceil_div(channels, parts) + 3 * kLanes<Real<T>>;
}

struct ProductGradientPlan {
  bool exchanged;  // whether channels and filters are exchanged, in all of what follows, too
  int64_t images;  // 1 where pixels follow each other from image to image
  Cut tiles;       // of the pixels of an image
  int64_t groups, channel_parts, tasks, scratch;  // as in PlanStep; scratch in elements
};

// The problem whose kernel is the other's transposed.
inline Pointwise with_exchanged(const Pointwise& s) {
  return {s.images, s.pixels, s.filters, s.channels, s.channels_first};
}

// Whether the kernel's gradient is computed for that problem.
inline bool is_exchanged(const Pointwise& s) {
  return !s.channels_first && s.channels >= tuning::kExchangedChannels * s.filters &&
         s.images * s.pixels >= tuning::kExchangedPixels;
}

template <class T>
ProductGradientPlan plan_product_gradient(const Pointwise& given, int64_t threads) {
  const bool exchanged = is_exchanged(given);
  const Pointwise s = exchanged ? with_exchanged(given) : given;
  const int64_t images = s.channels_first ? s.images : 1;
  const int64_t pixels = s.channels_first ? s.pixels : s.images * s.pixels;
  const int64_t least = ceil_div(pixels, kGradientPixels);
  const GradientCut cut =
      gradient_cut<T>(images * least, images * pixels, s.channels, s.filters, true, threads);
  const Cut tiles = cut_into(pixels, images == 1 ? round_up(least, cut.groups) : least);
  const int64_t largest = largest_channel_part<T>(s.channels, cut.channel_parts);
  return {.exchanged = exchanged,
          .images = images,
          .tiles = tiles,
          .groups = cut.groups,
          .channel_parts = cut.channel_parts,
          .tasks = cut.groups * cut.channel_parts,
          .scratch = gradient_elements<T>(largest, s.filters, tiles.most, s.channels_first)};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
