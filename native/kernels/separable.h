// The separable convolution over whole tensors: depthwise tiles, computed in cache, feed the
// pointwise product; the backward pass computes them again instead of keeping them.
#pragma once
#include "../operation.h"
#include "../tuning.h"
#include "depthwise_gradient.h"
#include "image_parts.h"
#include "pointwise.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Tiles of outputs of about `pixels` pixels: whole rows, or pieces of long rows.
struct Tiles {
  Bands bands;
  int64_t pieces;  // of a row
  int64_t count(const Geometry& g) const { return g.n * bands.count * pieces; }
  int64_t pixels(const Geometry& g) const { return bands.rows * ceil_div(g.wo, pieces); }
};

struct Tile {
  int64_t n, p0, p1, q0, q1;
  int64_t pixels() const { return (p1 - p0) * (q1 - q0); }
};

// Pieces are of two rows, which share most of the input that they see.
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

// The tiles of a layout and of how the depthwise step goes.
template <class T>
Tiles usual_tiles(const Geometry& g) {
  return cut_tiles(g, g.channels_first ? 2 * tuning::kTilePixels : tuning::kTilePixels,
                   is_flat<T>(g) || (g.m == 1 && !is_narrow<T>(g)));
}

// Images cut into `each` parts of as many pixels, of which the rows that they share with the next
// are computed twice: for images so small that parts of whole rows would not be even.
struct PixelParts {
  int64_t each;
  PixelParts(const Geometry& g, int64_t threads) {
    const int64_t pixels = g.ho * g.wo, parts = ceil_div(pixels * g.n, tuning::kPartPixels);
    each = min_of(pixels, ceil_div(round_up(max_of(1, parts), threads), max_of(1, g.n)));
  }
  // The sizes of the tile around the largest part.
  Tiles tiles(const Geometry& g) const {
    const int64_t rows = ceil_div(ceil_div(g.ho * g.wo, each), g.wo) + 1;
    return {{g.ho, 1, min_of(rows, g.ho), each}, 1};
  }
  int64_t first(const Geometry& g, int64_t part) const {
    return part_start(g.ho * g.wo, each, part);
  }
};

// Elements from a pixel of a tile to the next: with many channels a power of two would put all
// pixels on the same few sets of the first cache.
template <class T>
inline int64_t pixel_pitch(int64_t channels) {
  const int64_t bytes = channels * static_cast<int64_t>(sizeof(T));
  return bytes % 1024 == 0 ? channels + kLanes<T> : channels;
}

// The greatest that it is for so many channels or fewer.
template <class T>
inline int64_t greatest_pitch(int64_t channels) {
  return channels + kLanes<T>;
}

// Tiles of the depthwise result in the layout that the pointwise product reads: channels_last as
// [pixel][channel], channels_first as [channel][pixel] or as packed panels of pixels.
template <class T>
class DepthwiseTiles {
 public:
  DepthwiseTiles(const Geometry& geometry, const Tiles& cut, const T* x, const T* kernel,
                 const T* bias = nullptr, Activation activation = Activation::none)
      : g(geometry),
        tiles(cut),
        x_(x),
        kernel_(kernel),
        bias_(bias),
        activation_(activation),
        bands_(geometry, kernel, bias, geometry.channels_first ? 0 : tiles.bands.rows,
               ceil_div(geometry.wo, tiles.pieces)),
        planar_(geometry, geometry.channels_first ? tiles.bands.rows : 0) {}

  const Geometry& g;
  const Tiles tiles;

  int64_t scratch() const { return g.channels_first ? forward_scratch(planar_) : bands_.scratch(); }
  // Calls f(first, count, element) for runs of a tile's pixels, `first` in the tile, that follow
  // each other in the output too: there they are from pixel `element` on.
  template <class F>
  void each_run(const Tile& t, F&& f) const {
    const int64_t first = (t.n * g.ho + t.p0) * g.wo + t.q0, columns = t.q1 - t.q0;
    if (tiles.pieces == 1) {
      f(0, t.pixels(), first);
      return;
    }
    for (int64_t p = 0; p < t.p1 - t.p0; ++p) f(p * columns, columns, first + p * g.wo);
  }

  // Whether a range of channels can be computed apart.
  bool may_split() const { return g.channels_first ? g.m == 1 : bands_.may_split(); }

  // Channels [c0, c1), pixels `pitch` apart.
  void rows(const Tile& t, int64_t c0, int64_t c1, T* out, int64_t pitch, T* scratch) const {
    const Box box{t.p0, t.p1, t.q0, t.q1, c0, c1};
    bands_.compute(x_ + t.n * g.h * g.w * g.c, activation_, box, out, (t.q1 - t.q0) * pitch, pitch,
                   scratch);
  }

  // Channels [c0, c1) as [c1 - c0][pixel].
  void planes(const Tile& t, int64_t c0, int64_t c1, T* out, T* scratch) const {
    each_plane(t, c0, c1, scratch, [&](int64_t o, const T* flat) {
      T* to = out + (o - c0) * t.pixels();
      for (int64_t p = 0; p < t.p1 - t.p0; ++p)
        scatter_run(flat + p * planar_.pitch, g.wo, int64_t{1}, to + p * g.wo);
    });
  }

  // All channels as panels of pixels, [pixel / kPanel][channel][kPanel].
  void packed(const Tile& t, T* out, T* scratch) const {
    static_assert(ProductOf<T>::kSteps == 1, "a channel is a row of a panel");
    const int64_t channels = g.c * g.m, panel = panel_elements<T>(channels);
    const int64_t last = t.pixels() / kPanel<T>;
    if (t.pixels() % kPanel<T> != 0) fill_zero(out + last * panel, panel);
    each_plane(t, 0, channels, scratch, [&](int64_t o, const T* flat) {
      // Rows of outputs follow each other through the lanes of one panel after the other.
      T* to = out + o * kPanel<T>;
      int64_t lane = 0;
      for (int64_t p = 0; p < t.p1 - t.p0; ++p)
        for (int64_t q = 0; q < g.wo;) {
          const int64_t count = min_of(kPanel<T> - lane, g.wo - q);
          gather_run(flat + p * planar_.pitch + q, int64_t{1}, count, to + lane);
          q += count;
          lane += count;
          if (lane == kPanel<T>) {
            lane = 0;
            to += panel;
          }
        }
    });
  }

 private:
  template <class F>
  void each_plane(const Tile& t, int64_t c0, int64_t c1, T* scratch, F&& f) const {
    each_forward_plane<T>(planar_, x_, t.n, t.p0, t.p1 - t.p0, c0, c1, kernel_, bias_, activation_,
                          scratch, f);
  }

  const T* x_;
  const T* kernel_;
  const T* bias_;
  const Activation activation_;
  const DepthwiseBands<T> bands_;
  const Planar<T> planar_;
};

template <class T>
Weights<T> forward_weights(const T* kernel, int64_t channels, int64_t filters,
                           const void* packed = nullptr) {
  return {kernel, channels, filters, filters, 1, static_cast<const T*>(packed)};
}

template <class T>
Weights<T> gradient_weights(const T* kernel, int64_t channels, int64_t filters) {
  return {kernel, filters, channels, 1, filters};
}

// Of a Forward or a PointwiseForward.
template <class T, class Args>
Finish<T> finish_of(const Args& args) {
  return {static_cast<const T*>(args.bias), static_cast<const T*>(args.residual), args.activation};
}

// Whether tiles are worth it however few they are: where each thread may have all weights to
// itself, its own or ones packed before that the caches hold, what one step leaves for the next
// need not go from core to core. Not where a kernel is so large that tiles share most of what they
// see, nor where rows are gone along, whose sums depend on where they are cut, and here the number
// of threads does that.
template <class T>
bool takes_few(const Geometry& g, const Weights<T>& weights, bool kept) {
  const int64_t bytes = weights.depth * weights.outputs * static_cast<int64_t>(sizeof(T));
  return g.m == 1 && !is_narrow<T>(g) && !is_flat<T>(g) && g.kh * g.kw <= tuning::kWindowTaps &&
         (kept || (weights.packed != nullptr && bytes <= tuning::kSharedWeightBytes));
}

// Whether a kernel is so large that a tile's window is many times the tile, and an image small
// enough that the whole of it between the steps stays in a cache.
template <class T>
bool is_better_whole(const Geometry& g) {
  const int64_t bytes = g.ho * g.wo * g.c * g.m * static_cast<int64_t>(sizeof(T));
  return g.kh * g.kw >= tuning::kWindowTaps && bytes <= 2 * tuning::kPartBytes;
}

// One step after the other, the second cut along the filters too, for as many images at a time as a
// cache holds what is between them.
template <class T>
void separable_in_steps(const Geometry& g, const Forward& args, const Weights<T>& weights,
                        Runner& runner) {
  const int64_t pixels = g.ho * g.wo, image = pixels * weights.depth;
  constexpr int64_t kRoom = tuning::kPartBytes / static_cast<int64_t>(sizeof(T));
  const int64_t together = units_together(g.n, image, weights.depth * weights.outputs, kRoom);
  const Workspace<T> middle(together * image);
  Geometry part = g;
  each_part(g.n, together, [&](int64_t first, int64_t images, bool) {
    part.n = images;
    depthwise_forward<T>(part, static_cast<const T*>(args.x) + first * g.h * g.w * g.c,
                         static_cast<const T*>(args.depthwise_kernel),
                         static_cast<const T*>(args.depthwise_bias), args.depthwise_activation,
                         middle.get(), runner);
    const int64_t element = first * pixels * weights.outputs;
    Finish<T> finish = finish_of<T>(args);
    if (finish.residual != nullptr) finish.residual += element;
    pointwise_product<T>(images, pixels, g.channels_first, weights, middle.get(), finish,
                         static_cast<T*>(args.y) + element, runner);
  });
}

template <class T>
void separable_forward(const Geometry& g, const Forward& args, Runner& runner) {
  const int64_t channels = g.c * g.m, filters = args.filters, pixels = g.ho * g.wo;
  const int64_t threads = runner.concurrency();
  const T* x = static_cast<const T*>(args.x);
  const T* kernel = static_cast<const T*>(args.depthwise_kernel);
  const T* depthwise_bias = static_cast<const T*>(args.depthwise_bias);
  const Finish<T> finish = finish_of<T>(args);
  T* y = static_cast<T*>(args.y);
  const Weights<T> weights = forward_weights(static_cast<const T*>(args.pointwise_kernel), channels,
                                             filters, args.packed_kernel);
  const WeightBlocks<T> own(weights, 1);
  const bool kept = !g.channels_first && own.count == 1;
  const Tiles usual = usual_tiles<T>(g);
  const bool few = usual.count(g) < tuning::kFewTiles, may_be_few = takes_few(g, weights, kept);
  const bool parts = may_be_few && usual.count(g) < 2 * threads;
  // Too few tiles to share out, windows too large, or weights for which see exact.h.
  if ((few && !may_be_few) || is_better_whole<T>(g) ||
      !all_finite(kernel, g.kh * g.kw * channels)) {
    separable_in_steps<T>(g, args, weights, runner);
    return;
  }
  const PixelParts pixel_parts(g, threads);
  const DepthwiseTiles<T> tiles(g, parts ? pixel_parts.tiles(g) : usual, x, kernel, depthwise_bias,
                                args.depthwise_activation);
  const int64_t count = tiles.tiles.count(g), most = tiles.tiles.pixels(g);
  if (g.channels_first) {
    const WeightRows<T> rows(weights);
    const int64_t panel = packed_elements<T>(channels, most);
    parallel<T>(runner, count, panel + tiles.scratch(), [&](int64_t index, T* scratch) {
      const Tile t = tile_at(g, tiles.tiles, index);
      tiles.packed(t, scratch, scratch + panel);
      const int64_t element = t.n * filters * pixels + t.p0 * g.wo;
      multiply(filters, t.pixels(), channels, rows.matrix(), MatrixB<T>{scratch}, y + element,
               pixels, finish.at(true, 0, element));
    });
    return;
  }
  const int64_t pitch = pixel_pitch<T>(channels);
  const auto compute = [&](const Tile& t, T* scratch) {
    tiles.rows(t, 0, channels, scratch, pitch, scratch + most * pitch);
  };
  // Pixels of a tile from `first` on, which in the output is pixel `pixel`.
  const auto product = [&](int64_t first, int64_t pixels_here, int64_t pixel, const T* scratch,
                           const MatrixB<T>& b) {
    multiply(pixels_here, filters, channels, MatrixA<T>{scratch + first * pitch, pitch, 1}, b,
             y + pixel * filters, filters, finish.at(false, 0, pixel * filters));
  };
  const auto task = [&](int64_t index, T* scratch, MatrixB<T> b) {
    if (parts) {
      const int64_t n = index / pixel_parts.each, part = index % pixel_parts.each;
      const int64_t first = pixel_parts.first(g, part), last = pixel_parts.first(g, part + 1);
      const Tile t{n, first / g.wo, ceil_div(last, g.wo), 0, g.wo};
      compute(t, scratch);
      product(first - t.p0 * g.wo, last - first, n * pixels + first, scratch, b);
      return;
    }
    const Tile t = tile_at(g, tiles.tiles, index);
    compute(t, scratch);
    tiles.each_run(t, [&](int64_t first, int64_t pixels_here, int64_t pixel) {
      product(first, pixels_here, pixel, scratch, b);
      b.source = nullptr;  // its panels are filled now
    });
  };
  const int64_t elements = most * pitch + tiles.scratch();
  if (kept) {
    parallel_keeping<T>(
        runner, count, elements, own.elements(),
        [&](int64_t index, T* scratch, Kept* held) { task(index, scratch, own.get(0, held)); });
    return;
  }
  const PackedWeights<T> packed(weights, runner);
  parallel<T>(runner, count, elements,
              [&](int64_t index, T* scratch) { task(index, scratch, packed.all()); });
}

// The pointwise kernel's gradient, its depthwise tiles computed anew.
template <class T>
void recomputed_pointwise_gradient(const Geometry& g, const Backward& args, Runner& runner) {
  const int64_t channels = g.c * g.m, filters = args.filters, pixels = g.ho * g.wo;
  const int64_t size = channels * filters, all = g.n * pixels;
  const T* x = static_cast<const T*>(args.x);
  const T* kernel = static_cast<const T*>(args.depthwise_kernel);
  const T* dy = static_cast<const T*>(args.dy);
  if (!all_finite(kernel, g.kh * g.kw * channels)) {
    Workspace<T> middle(g.n * pixels * channels);
    exact_forward<T>(g, x, kernel, nullptr, Activation::none, middle.get(), runner);
    pointwise_kernel_gradient<T>({g.n, pixels, channels, filters, g.channels_first}, middle.get(),
                                 dy, static_cast<T*>(args.dpointwise), runner);
    return;
  }
  const DepthwiseTiles<T> tiles(g, usual_tiles<T>(g), x, kernel);
  const int64_t units = tiles.tiles.count(g), most = tiles.tiles.pixels(g);
  const auto [groups, split] =
      gradient_cut<T>(units, all, channels, filters, tiles.may_split(), runner.concurrency());
  const GroupSums<T> sums(groups, size, static_cast<T*>(args.dpointwise));
  const int64_t widest = widest_range<T>(channels, split);
  const int64_t packed = gradient_elements<T>(widest, filters, most, g.channels_first);
  const int64_t room = most * greatest_pitch<T>(widest);
  parallel<T>(runner, groups * split, packed + room + tiles.scratch(),
              [&, groups = groups, split = split](int64_t task, T* scratch) {
                const TapRange c = channel_range<T>(channels, split, task % split);
                const int64_t group = task / split, width = c.last - c.first;
                const int64_t pitch = pixel_pitch<T>(width);
                T* middle = scratch + packed;
                T* rest = middle + room;
                T* to = sums.of(group) + c.first * filters;
                const int64_t begin = part_start(units, groups, group);
                for (int64_t unit = begin; unit < part_start(units, groups, group + 1); ++unit) {
                  const Tile t = tile_at(g, tiles.tiles, unit);
                  if (g.channels_first) {
                    tiles.planes(t, c.first, c.last, middle, rest);
                    add_pointwise_gradient(width, filters, t.pixels(),
                                           MatrixA<T>{middle, t.pixels(), 1},
                                           dy + t.n * filters * pixels + t.p0 * g.wo, int64_t{1},
                                           pixels, unit != begin, to, scratch);
                  } else {
                    tiles.rows(t, c.first, c.last, middle, pitch, rest);
                    tiles.each_run(t, [&](int64_t first, int64_t pixels_here, int64_t pixel) {
                      add_pointwise_gradient(
                          width, filters, pixels_here, MatrixA<T>{middle + first * pitch, 1, pitch},
                          dy + pixel * filters, filters, int64_t{1}, unit != begin || first != 0,
                          to, scratch, next_rows(dy, filters, pixel + pixels_here, all, most));
                    });
                  }
                }
              });
  sums.add_up(runner);
}

template <class T>
void depthwise_backward(const Geometry& g, const Backward& args, const T* dy, Runner& runner) {
  if (args.dx != nullptr)
    depthwise_input_gradient<T>(g, dy, static_cast<const T*>(args.depthwise_kernel),
                                static_cast<T*>(args.dx), runner);
  if (args.ddepthwise != nullptr)
    depthwise_kernel_gradient<T>(g, static_cast<const T*>(args.x), dy,
                                 static_cast<T*>(args.ddepthwise), runner);
}

// All gradients of as many images as go through together.
template <class T>
void backward_part(const Geometry& g, const Backward& args, Runner& runner) {
  const int64_t channels = g.c * g.m, pixels = g.ho * g.wo;
  const T* dy = static_cast<const T*>(args.dy);
  if (args.dbias != nullptr)
    bias_gradient<T>(g.n, pixels, args.separable() ? args.filters : channels, g.channels_first, dy,
                     static_cast<T*>(args.dbias), runner);
  if (!args.separable()) {
    depthwise_backward<T>(g, args, dy, runner);
    return;
  }
  if (args.dpointwise != nullptr) recomputed_pointwise_gradient<T>(g, args, runner);
  if (args.dx == nullptr && args.ddepthwise == nullptr) return;
  Workspace<T> dmiddle(g.n * pixels * channels);
  pointwise_product<T>(
      g.n, pixels, g.channels_first,
      gradient_weights(static_cast<const T*>(args.pointwise_kernel), channels, args.filters), dy,
      Finish<T>{}, dmiddle.get(), runner);
  depthwise_backward<T>(g, args, dmiddle.get(), runner);
}

// Every gradient reads dy, or what the product made of it, so a large batch goes through in parts
// that the caches hold; and only for a part is there memory for the middle's gradient.
template <class T>
void backward_all(const Geometry& g, const Backward& args, Runner& runner) {
  const int64_t channels = g.c * g.m, pixels = g.ho * g.wo, taps = g.kh * g.kw * channels;
  const int64_t filters = args.separable() ? args.filters : channels;
  const int64_t weights = args.separable() ? channels * filters : 0;
  const int64_t in = g.h * g.w * g.c, out = pixels * filters;
  const int64_t image = 2 * in + out + (args.separable() ? pixels * channels : 0);
  constexpr int64_t kRoom = tuning::kPartBytes / static_cast<int64_t>(sizeof(T));
  const int64_t together = units_together(g.n, image, 4 * weights, kRoom);
  if (together >= g.n) {
    backward_part<T>(g, args, runner);
    return;
  }
  const PartSum<T> ddepthwise(static_cast<T*>(args.ddepthwise), taps);
  const PartSum<T> dpointwise(static_cast<T*>(args.dpointwise), weights);
  const PartSum<T> dbias(static_cast<T*>(args.dbias), filters);
  each_part(g.n, together, [&](int64_t first, int64_t count, bool first_part) {
    Geometry part = g;
    part.n = count;
    Backward here = args;
    if (args.x != nullptr) here.x = static_cast<const T*>(args.x) + first * in;
    here.dy = static_cast<const T*>(args.dy) + first * out;
    if (args.dx != nullptr) here.dx = static_cast<T*>(args.dx) + first * in;
    here.ddepthwise = ddepthwise.get(first_part);
    here.dpointwise = dpointwise.get(first_part);
    here.dbias = dbias.get(first_part);
    backward_part<T>(part, here, runner);
    ddepthwise.add(first_part, runner);
    dpointwise.add(first_part, runner);
    dbias.add(first_part, runner);
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
