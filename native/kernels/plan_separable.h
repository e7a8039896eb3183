// The plan of a separable convolution: one step in which depthwise tiles feed the product, or two
// steps; how the work is cut into tasks, and how many images take several passes together. As in
// plan_depthwise.h, it follows from sizes and reads no memory.
#pragma once
#include "batch_parts.h"
#include "plan_depthwise.h"
#include "plan_pointwise.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// --- tiles of the depthwise result ---------------------------------------------------------------

// Tiles of outputs of about `pixels` pixels: whole rows, or pieces of long rows.
struct Tiles {
  Cut bands;
  int64_t pieces;  // of a row
  int64_t count(const Geometry& g) const { return g.n * bands.count * pieces; }
  int64_t pixels(const Geometry& g) const { return bands.most * ceil_div(g.wo, pieces); }
};

struct Tile {
  int64_t n, p0, p1, q0, q1;
  int64_t pixels() const { return (p1 - p0) * (q1 - q0); }
};

// Pieces have two rows, which share most of their inputs.
inline Tiles cut_tiles(const Geometry& g, int64_t pixels, bool pieces) {
  if (pieces && 2 * g.wo > pixels + pixels / 2)
    return {cut_bands(g.ho, 2, g.n, 2), ceil_div(2 * g.wo, pixels + pixels / 2)};
  // An odd row would be computed alone, or twice.
  const int64_t rows = pixels / g.wo;
  if (pieces && rows % 2 != 0 && row_unit(g) == 2) return {cut_bands(g.ho, rows + 1, g.n, 2), 1};
  return {cut_bands(g.ho, rows, g.n), 1};
}

inline Tile tile_at(const Geometry& g, const Tiles& tiles, int64_t index) {
  const int64_t piece = index % tiles.pieces, band = index / tiles.pieces % tiles.bands.count;
  return {index / tiles.pieces / tiles.bands.count, tiles.bands.first(band),
          tiles.bands.first(band + 1), part_start(g.wo, tiles.pieces, piece),
          part_start(g.wo, tiles.pieces, piece + 1)};
}

// The tiles for a layout and a depthwise kernel.
template <class T>
Tiles usual_tiles(const Geometry& g) {
  if (g.channels_first) return cut_tiles(g, 2 * tuning::kTilePixels, false);
  return cut_tiles(g, tuning::kTilePixels, is_flat<T>(g) || may_split_channels<T>(g));
}

// How the depthwise step computes such tiles.
template <class S>
BandPlan plan_tile_band(const Geometry& g, const Tiles& tiles) {
  return plan_band<S>(g, pick_kernel<Real<S>>(g), tiles.bands.most, ceil_div(g.wo, tiles.pieces));
}

// Cuts every image into `each` parts of equally many pixels, for images so small that parts of
// whole rows would not be even. A row that two parts share is computed twice.
struct PixelParts {
  int64_t each;
  int64_t first(const Geometry& g, int64_t part) const {
    return part_start(g.ho * g.wo, each, part);
  }
};

inline PixelParts cut_pixels(const Geometry& g, int64_t threads) {
  const int64_t pixels = g.ho * g.wo, parts = ceil_div(pixels * g.n, tuning::kPartPixels);
  return {min_of(pixels, ceil_div(round_up(max_of(1, parts), threads), max_of(1, g.n)))};
}

// The size of the tile that contains the largest part.
inline Tiles tiles_of_parts(const Geometry& g, const PixelParts& parts) {
  const int64_t rows = ceil_div(ceil_div(g.ho * g.wo, parts.each), g.wo) + 1;
  return {{g.ho, 1, min_of(rows, g.ho), parts.each}, 1};
}

// Elements from a pixel of a tile to the next: with many channels a power of two would put all
// pixels on the same few sets of the first cache.
template <class T>
inline int64_t pixel_pitch(int64_t channels) {
  const int64_t bytes = channels * static_cast<int64_t>(sizeof(T));
  return bytes % 1024 == 0 ? channels + kLanes<T> : channels;
}

// The largest pixel_pitch() of `channels` channels or fewer.
template <class T>
inline int64_t largest_pitch(int64_t channels) {
  return channels + kLanes<T>;
}

// --- forward -------------------------------------------------------------------------------------

// Whether an image may be cut at any pixel: not in the flat kernel, whose sums depend on the cut.
template <class T>
bool may_be_parts(const Geometry& g) {
  return g.m == 1 && !is_narrow<T>(g) && !is_flat<T>(g);
}

// Whether fused tiles pay even if there are few: where each thread can have all weights itself (its
// own, or packed ones that fit the caches), the depthwise result need not move between cores. Not
// for kernels so large that tiles share most of their inputs, nor where an image may not be cut
// anywhere, since the number of threads decides the cut here.
template <class S>
bool takes_few(const Geometry& g, int64_t filters, bool packed, bool kept) {
  const int64_t bytes = g.c * g.m * filters * static_cast<int64_t>(sizeof(Multiplied<S>));
  return may_be_parts<Real<S>>(g) && g.kh * g.kw <= tuning::kWindowTaps &&
         (kept || (packed && bytes <= tuning::kSharedWeightBytes));
}

// Whether the kernel is so large that a tile's window is many times the tile, while the depthwise
// result of a whole image stays in a cache.
template <class T>
bool is_better_whole(const Geometry& g) {
  const int64_t bytes = g.ho * g.wo * g.c * g.m * static_cast<int64_t>(sizeof(T));
  return g.kh * g.kw >= tuning::kWindowTaps && bytes <= 2 * tuning::kPartBytes;
}

// The number of images that take both steps before the next ones do: as many as a cache can hold
// the depthwise result of.
template <class T>
int64_t images_between_steps(const Geometry& g, int64_t filters) {
  constexpr int64_t kRoom = tuning::kPartBytes / static_cast<int64_t>(sizeof(T));
  const int64_t channels = g.c * g.m;
  return units_together(g.n, g.ho * g.wo * channels, channels * filters, kRoom);
}

// As many elements of Real<S> as hold `count` of Multiplied<S>: tiles and weights are of that type,
// scratch is counted in the other.
template <class S>
int64_t in_reals(int64_t count) {
  constexpr int64_t kMultiplied = sizeof(Multiplied<S>), kReal = sizeof(Real<S>);
  return ceil_div(count * kMultiplied, kReal);
}

// Elements of scratch come in this order: a tile, and what the depthwise step needs for it. Tensors
// are of S, elements of Real<S> but where it is said.
struct SeparablePlan {
  bool in_steps = false;     // the depthwise step and then the product; what follows is of one step
  bool in_parts = false;     // parts of small images, not tiles
  bool own_weights = false;  // whether each thread packs all weights for itself
  Tiles tiles = {};          // or, of parts, the sizes of the tile around the largest
  PixelParts parts = {};
  BandPlan band = {};
  Cut filter_parts = {};  // of outputs, where each thread has its own weights: the only one
  int64_t pitch = 0;      // from a pixel of a tile to the next, in elements of Multiplied<S>
  int64_t tile = 0;       // elements of the largest
  int64_t tasks = 0, scratch = 0, kept = 0;
};

// `packed` says whether the pointwise kernel is packed already.
template <class S>
SeparablePlan plan_separable_forward(const Geometry& g, int64_t filters, bool packed,
                                     int64_t threads, Schedule schedule = Schedule::chosen) {
  using T = Real<S>;
  using M = Multiplied<S>;
  const int64_t channels = g.c * g.m;
  const Tiles usual = usual_tiles<T>(g);
  SeparablePlan plan;
  plan.filter_parts = cut_outputs<S>(channels, filters, 1);
  plan.own_weights = !g.channels_first && plan.filter_parts.count == 1;
  const bool few = usual.count(g) < tuning::kFewTiles;
  const bool may_be_few = takes_few<S>(g, filters, packed, plan.own_weights);
  // In steps: too few tiles to share out, or windows too large.
  if (schedule == Schedule::chosen || (schedule == Schedule::parts && !may_be_parts<T>(g)))
    schedule = (few && !may_be_few) || is_better_whole<T>(g) ? Schedule::steps
               : may_be_few && usual.count(g) < 2 * threads  ? Schedule::parts
                                                             : Schedule::tiles;
  plan.in_steps = schedule == Schedule::steps;
  if (plan.in_steps) return plan;
  plan.in_parts = schedule == Schedule::parts;
  plan.parts = cut_pixels(g, threads);
  plan.tiles = plan.in_parts ? tiles_of_parts(g, plan.parts) : usual;
  plan.band = plan_tile_band<S>(g, plan.tiles);
  plan.pitch = pixel_pitch<M>(channels);
  const int64_t most = plan.tiles.pixels(g);
  plan.tile =
      in_reals<S>(g.channels_first ? packed_elements<M>(channels, most) : most * plan.pitch);
  plan.tasks = plan.tiles.count(g);
  plan.scratch = plan.tile + plan.band.scratch;
  if (plan.own_weights)
    plan.kept = in_reals<S>(kept_weights<S>(plan.filter_parts, channels, packed));
  return plan;
}

// --- backward ------------------------------------------------------------------------------------

// The pointwise kernel's gradient, which recomputes the depthwise tiles. Elements of scratch in
// this order: the product's packed operands, a tile, and the depthwise step's.
struct RecomputePlan {
  Tiles tiles;
  BandPlan band;
  int64_t groups, channel_parts;  // as in PlanStep
  int64_t packed, tile;           // elements of Real<S>
  int64_t tasks, scratch;
};

template <class S>
RecomputePlan plan_recompute(const Geometry& g, int64_t filters, int64_t threads) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m;
  const Tiles tiles = usual_tiles<T>(g);
  const BandPlan band = plan_tile_band<S>(g, tiles);
  const int64_t most = tiles.pixels(g);
  const GradientCut cut = gradient_cut<S>(tiles.count(g), g.n * g.ho * g.wo, channels, filters,
                                          may_split_channels<T>(g), threads);
  const int64_t largest = largest_channel_part<T>(channels, cut.channel_parts);
  const int64_t packed =
      in_reals<S>(gradient_elements<S>(largest, filters, most, g.channels_first));
  const int64_t tile = in_reals<S>(most * largest_pitch<Multiplied<S>>(largest));
  return {.tiles = tiles,
          .band = band,
          .groups = cut.groups,
          .channel_parts = cut.channel_parts,
          .packed = packed,
          .tile = tile,
          .tasks = cut.groups * cut.channel_parts,
          .scratch = packed + tile + band.scratch};
}

// The number of images whose gradients are all computed before the next ones': each gradient reads
// dy, or the depthwise result's gradient, so as many as the caches hold. `filters` is 0 for a
// depthwise step alone.
template <class T>
int64_t images_backward(const Geometry& g, int64_t filters) {
  const int64_t channels = g.c * g.m, pixels = g.ho * g.wo;
  const int64_t outputs = filters != 0 ? filters : channels;
  const int64_t weights = channels * filters, middle = filters != 0 ? pixels * channels : 0;
  const int64_t image = 2 * g.h * g.w * g.c + pixels * outputs + middle;
  constexpr int64_t kRoom = tuning::kPartBytes / static_cast<int64_t>(sizeof(T));
  return units_together(g.n, image, 4 * weights, kRoom);
}

// --- an ordinary convolution ---------------------------------------------------------------------

// The product of patches (patches.h) and the kernel as a matrix, as plan_pointwise.h counts it.
// Channels last, a task copies a
// tile of patches and multiplies it by all weights; channels first, it packs them as it would
// pixels.
struct PatchesPlan {
  ProductPlan product;
  int64_t pitch =
      0;  // channels last: elements from a patch to the next, with what copies write over
};

template <class S>
PatchesPlan plan_patches(const Geometry& g, int64_t filters, bool packed) {
  const int64_t depth = g.kh * g.kw * g.c, pitch = depth + kLanes<Multiplied<S>>;
  if (g.channels_first) return {plan_product_first<S>(g.n, g.ho * g.wo, depth, filters)};
  const Cut tiles = cut_rows(g.n * g.ho * g.wo), filter_parts = cut_outputs<S>(depth, filters, 1);
  return {.product = {.tiles = tiles,
                      .filter_parts = filter_parts,
                      .tasks = tiles.count,
                      .scratch = tiles.most * pitch,
                      .kept = kept_weights<S>(filter_parts, depth, packed)},
          .pitch = pitch};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
