// The separable convolution over whole tensors, as plan_separable.h has planned it: depthwise
// tiles, computed in cache, feed the pointwise product; the backward pass computes them again
// instead of keeping them.
#pragma once
#include "../operation.h"
#include "batch_parts.h"
#include "depthwise_gradient.h"
#include "plan_separable.h"
#include "products.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Tiles of the depthwise result in the layout that the pointwise product reads: channels_last as
// [pixel][channel], channels_first as [channel][pixel] or as packed panels of pixels.
template <class T>
class DepthwiseTiles {
 public:
  DepthwiseTiles(const Geometry& geometry, const Tiles& cut, const BandPlan& band, const T* x,
                 const T* kernel, const T* bias = nullptr, Activation activation = Activation::none)
      : g(geometry),
        tiles(cut),
        x_(x),
        kernel_(kernel),
        bias_(bias),
        activation_(activation),
        bands_(geometry, band, kernel, bias) {}

  const Geometry& g;
  const Tiles tiles;

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
        scatter_run(flat + p * bands_.planar().pitch, g.wo, int64_t{1}, to + p * g.wo);
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
          gather_run(flat + p * bands_.planar().pitch + q, int64_t{1}, count, to + lane);
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
    each_forward_plane<T>(bands_.planar(), x_, t.n, t.p0, t.p1 - t.p0, c0, c1, kernel_, bias_,
                          activation_, scratch, f);
  }

  const T* x_;
  const T* kernel_;
  const T* bias_;
  const Activation activation_;
  const DepthwiseBands<T> bands_;
};

// The two steps one after the other, for as many images at a time as a cache can hold the result
// between them of. The product is also cut along the filters.
template <class T>
void separable_in_steps(const Geometry& g, const Forward& args, const Weights<T>& weights,
                        Runner& runner) {
  const int64_t pixels = g.ho * g.wo, image = pixels * weights.depth;
  const int64_t together = images_between_steps<T>(g, weights.outputs);
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
  const T* x = static_cast<const T*>(args.x);
  const T* kernel = static_cast<const T*>(args.depthwise_kernel);
  const T* depthwise_bias = static_cast<const T*>(args.depthwise_bias);
  const Finish<T> finish = finish_of<T>(args);
  T* y = static_cast<T*>(args.y);
  const Weights<T> weights = forward_weights(static_cast<const T*>(args.pointwise_kernel), channels,
                                             filters, args.packed_kernel);
  const SeparablePlan plan = plan_separable_forward<T>(
      g, filters, weights.packed != nullptr, runner.concurrency(), args.overrule.schedule);
  // Of weights that are not finite, see exact.h.
  if (plan.in_steps || !all_finite(kernel, g.kh * g.kw * channels)) {
    separable_in_steps<T>(g, args, weights, runner);
    return;
  }
  const DepthwiseTiles<T> tiles(g, plan.tiles, plan.band, x, kernel, depthwise_bias,
                                args.depthwise_activation);
  if (g.channels_first) {
    const WeightRows<T> rows(weights);
    parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t index, T* scratch) {
      const Tile t = tile_at(g, tiles.tiles, index);
      tiles.packed(t, scratch, scratch + plan.tile);
      const int64_t element = t.n * filters * pixels + t.p0 * g.wo;
      multiply(filters, t.pixels(), channels, rows.matrix(), MatrixB<T>{scratch}, y + element,
               pixels, finish.at(true, 0, element));
    });
    return;
  }
  const int64_t pitch = plan.pitch;
  const auto compute = [&](const Tile& t, T* scratch) {
    tiles.rows(t, 0, channels, scratch, pitch, scratch + plan.tile);
  };
  // Pixels of a tile from `first` on, which in the output is pixel `pixel`.
  const auto product = [&](int64_t first, int64_t pixels_here, int64_t pixel, const T* scratch,
                           const MatrixB<T>& b) {
    multiply(pixels_here, filters, channels, MatrixA<T>{scratch + first * pitch, pitch, 1}, b,
             y + pixel * filters, filters, finish.at(false, 0, pixel * filters));
  };
  const auto task = [&](int64_t index, T* scratch, MatrixB<T> b) {
    if (plan.in_parts) {
      const int64_t n = index / plan.parts.each, part = index % plan.parts.each;
      const int64_t first = plan.parts.first(g, part), last = plan.parts.first(g, part + 1);
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
  if (plan.own_weights) {
    const WeightParts<T> own(weights, plan.filter_parts);
    parallel_keeping<T>(
        runner, plan.tasks, plan.scratch, plan.kept,
        [&](int64_t index, T* scratch, Kept* kept) { task(index, scratch, own.get(0, kept)); });
    return;
  }
  const PackedWeights<T> packed(weights, runner);
  parallel<T>(runner, plan.tasks, plan.scratch,
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
  const RecomputePlan plan = plan_recompute<T>(g, filters, runner.concurrency());
  const DepthwiseTiles<T> tiles(g, plan.tiles, plan.band, x, kernel);
  const int64_t units = tiles.tiles.count(g), most = tiles.tiles.pixels(g);
  const int64_t groups = plan.groups, parts = plan.channel_parts;
  const GroupSums<T> sums(groups, size, static_cast<T*>(args.dpointwise));
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* scratch) {
    const Range c = channel_part<T>(channels, parts, task % parts);
    const int64_t group = task / parts, width = c.last - c.first;
    const int64_t pitch = pixel_pitch<T>(width);
    T* middle = scratch + plan.packed;
    T* rest = middle + plan.tile;
    T* to = sums.of(group) + c.first * filters;
    const int64_t begin = part_start(units, groups, group);
    for (int64_t unit = begin; unit < part_start(units, groups, group + 1); ++unit) {
      const Tile t = tile_at(g, tiles.tiles, unit);
      if (g.channels_first) {
        tiles.planes(t, c.first, c.last, middle, rest);
        add_pointwise_gradient(width, filters, t.pixels(), MatrixA<T>{middle, t.pixels(), 1},
                               dy + t.n * filters * pixels + t.p0 * g.wo, int64_t{1}, pixels,
                               unit != begin, to, scratch);
      } else {
        tiles.rows(t, c.first, c.last, middle, pitch, rest);
        tiles.each_run(t, [&](int64_t first, int64_t pixels_here, int64_t pixel) {
          add_pointwise_gradient(width, filters, pixels_here,
                                 MatrixA<T>{middle + first * pitch, 1, pitch}, dy + pixel * filters,
                                 filters, int64_t{1}, unit != begin || first != 0, to, scratch,
                                 next_rows(dy, filters, pixel + pixels_here, all, most));
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

// All gradients of one part of the batch.
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

// Every gradient reads dy, or the depthwise result's gradient, so a large batch is computed in
// parts that the caches hold. Memory for the depthwise result's gradient is needed for one part
// only.
template <class T>
void backward_all(const Geometry& g, const Backward& args, Runner& runner) {
  const int64_t channels = g.c * g.m, pixels = g.ho * g.wo, taps = g.kh * g.kw * channels;
  const int64_t filters = args.separable() ? args.filters : channels;
  const int64_t weights = args.separable() ? channels * filters : 0;
  const int64_t in = g.h * g.w * g.c, out = pixels * filters;
  const int64_t together = images_backward<T>(g, args.filters);
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
