// The separable convolution over whole tensors, as plan_separable.h has planned it: depthwise
// tiles, computed in cache, feed the pointwise product; the backward pass computes them again
// instead of keeping them. What is between the steps, and its gradient, is of the tensors' type: of
// a half type it is rounded, wherever it is.
#pragma once
#include "../operation.h"
#include "batch_parts.h"
#include "depthwise_gradient.h"
#include "plan_separable.h"
#include "products.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Tiles of the depthwise result of x, of S, in the type and the layout that the pointwise product
// reads: channels_last as [pixel][channel], channels_first as [channel][pixel] or as packed panels
// of pixels.
template <class S>
class DepthwiseTiles {
  using T = Real<S>;
  using M = Multiplied<S>;

 public:
  DepthwiseTiles(const Geometry& geometry, const Tiles& cut, const BandPlan& band, const S* x,
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
  void rows(const Tile& t, int64_t c0, int64_t c1, M* out, int64_t pitch, T* scratch) const {
    const Box box{t.p0, t.p1, t.q0, t.q1, c0, c1};
    bands_.compute(x_ + t.n * g.h * g.w * g.c, activation_, box, out, (t.q1 - t.q0) * pitch, pitch,
                   scratch);
  }

  // Channels [c0, c1) as [c1 - c0][pixel].
  void planes(const Tile& t, int64_t c0, int64_t c1, M* out, T* scratch) const {
    each_plane(t, c0, c1, scratch, [&](int64_t o, const T* flat) {
      M* to = out + (o - c0) * t.pixels();
      for (int64_t p = 0; p < t.p1 - t.p0; ++p)
        scatter_run(flat + p * bands_.planar().pitch, g.wo, int64_t{1}, to + p * g.wo);
    });
  }

  // All channels as panels of pixels, as pack() leaves them.
  void packed(const Tile& t, M* out, T* scratch) const {
    constexpr int64_t kSteps = ProductOf<M>::kSteps, kRow = kPanel<M> * kSteps;
    const int64_t channels = g.c * g.m, panel = panel_elements<M>(channels);
    const int64_t last = t.pixels() / kPanel<M>;
    if (t.pixels() % kPanel<M> != 0) fill_zero(out + last * panel, panel);
    if (channels % kSteps != 0)  // what fills up the last step
      for (int64_t next = 1; next <= panels<M>(t.pixels()); ++next)
        fill_zero(out + next * panel - kRow, kRow);
    each_plane(t, 0, channels, scratch, [&](int64_t o, const T* flat) {
      // Rows of outputs follow each other through the lanes of one panel after the other.
      M* to = out + o / kSteps * kRow + o % kSteps;
      int64_t lane = 0;
      for (int64_t p = 0; p < t.p1 - t.p0; ++p)
        for (int64_t q = 0; q < g.wo;) {
          const int64_t count = min_of(kPanel<M> - lane, g.wo - q);
          scatter_run(flat + p * bands_.planar().pitch + q, count, kSteps, to + lane * kSteps);
          q += count;
          lane += count;
          if (lane == kPanel<M>) {
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
                          activation_, scratch, [&](int64_t o, T* flat) {
                            if constexpr (!kSame<S, M>)
                              put_run<S>(flat, (t.p1 - t.p0) * bands_.planar().pitch, flat);
                            f(o, flat);
                          });
  }

  const S* x_;
  const T* kernel_;
  const T* bias_;
  const Activation activation_;
  const DepthwiseBands<S> bands_;
};

// Both steps of a separable convolution, with what its product is made of.
template <class S>
struct SeparableCall {
  const S* x;
  const Real<S>* kernel;
  const Real<S>* depthwise_bias;
  Activation depthwise_activation;
  Weights<S> weights;
  Finish<S> finish;
  S* y;
};

// The two steps one after the other, for as many images at a time as a cache can hold the result
// between them of. The product is also cut along the filters.
template <class S>
void separable_in_steps(const Geometry& g, const SeparableCall<S>& call, Runner& runner) {
  const Weights<S>& weights = call.weights;
  const int64_t pixels = g.ho * g.wo, image = pixels * weights.depth;
  const int64_t together = images_between_steps<Real<S>>(g, weights.outputs);
  const Workspace<S> middle(together * image);
  Geometry part = g;
  each_part(g.n, together, [&](int64_t first, int64_t images, bool) {
    part.n = images;
    depthwise_forward<S>(part, call.x + first * g.h * g.w * g.c, call.kernel, call.depthwise_bias,
                         call.depthwise_activation, middle.get(), runner);
    const int64_t element = first * pixels * weights.outputs;
    Finish<S> finish = call.finish;
    if (finish.residual != nullptr) finish.residual += element;
    pointwise_product<S>(images, pixels, g.channels_first, weights, middle.get(), finish,
                         call.y + element, runner);
  });
}

// In one step, as planned.
template <class S>
void separable_in_tiles(const Geometry& g, const SeparablePlan& plan, const SeparableCall<S>& call,
                        Runner& runner) {
  using T = Real<S>;
  using M = Multiplied<S>;
  const int64_t channels = g.c * g.m, filters = call.weights.outputs, pixels = g.ho * g.wo;
  const DepthwiseTiles<S> tiles(g, plan.tiles, plan.band, call.x, call.kernel, call.depthwise_bias,
                                call.depthwise_activation);
  const auto tile_in = [](T* scratch) { return reinterpret_cast<M*>(scratch); };
  const auto product = [&](int64_t rows, int64_t columns, const MatrixA<M>& a, const WeightsB<S>& b,
                           int64_t element, int64_t row) {
    multiply<false, M, ProductInto<M, S>>(rows, columns, channels, a, b, call.y + element, row,
                                          call.finish.at(g.channels_first, 0, element));
  };
  if (g.channels_first) {
    const WeightRows<S> rows(call.weights);
    parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t index, T* scratch) {
      const Tile t = tile_at(g, tiles.tiles, index);
      tiles.packed(t, tile_in(scratch), scratch + plan.tile);
      product(filters, t.pixels(), rows.matrix(), WeightsB<S>{tile_in(scratch)},
              t.n * filters * pixels + t.p0 * g.wo, pixels);
    });
    return;
  }
  const int64_t pitch = plan.pitch;
  const auto compute = [&](const Tile& t, T* scratch) {
    tiles.rows(t, 0, channels, tile_in(scratch), pitch, scratch + plan.tile);
  };
  // Pixels of a tile from `first` on, which in the output is pixel `pixel`.
  const auto product_of = [&](int64_t first, int64_t pixels_here, int64_t pixel, T* scratch,
                              const WeightsB<S>& b) {
    product(pixels_here, filters, {tile_in(scratch) + first * pitch, pitch, 1}, b, pixel * filters,
            filters);
  };
  const auto task = [&](int64_t index, T* scratch, WeightsB<S> b) {
    if (plan.in_parts) {
      const int64_t n = index / plan.parts.each, part = index % plan.parts.each;
      const int64_t first = plan.parts.first(g, part), last = plan.parts.first(g, part + 1);
      const Tile t{n, first / g.wo, ceil_div(last, g.wo), 0, g.wo};
      compute(t, scratch);
      product_of(first - t.p0 * g.wo, last - first, n * pixels + first, scratch, b);
      return;
    }
    const Tile t = tile_at(g, tiles.tiles, index);
    compute(t, scratch);
    tiles.each_run(t, [&](int64_t first, int64_t pixels_here, int64_t pixel) {
      product_of(first, pixels_here, pixel, scratch, b);
      b.source = nullptr;  // its panels are filled now
    });
  };
  if (plan.own_weights) {
    const WeightParts<S> own(call.weights, plan.filter_parts);
    parallel_keeping<T>(
        runner, plan.tasks, plan.scratch, plan.kept,
        [&](int64_t index, T* scratch, Kept* kept) { task(index, scratch, own.get(0, kept)); });
    return;
  }
  const PackedWeights<S> packed(call.weights, runner);
  parallel<T>(runner, plan.tasks, plan.scratch,
              [&](int64_t index, T* scratch) { task(index, scratch, packed.all()); });
}

template <class S>
void separable_forward(const Geometry& g, const Forward& args, Runner& runner) {
  const int64_t channels = g.c * g.m, filters = args.filters, weights = g.kh * g.kw * channels;
  const RealValues<S> kernel(static_cast<const S*>(args.depthwise_kernel), weights);
  const RealValues<S> depthwise_bias(static_cast<const S*>(args.depthwise_bias), channels);
  const SeparableCall<S> call{static_cast<const S*>(args.x),
                              kernel.get(),
                              depthwise_bias.get(),
                              args.depthwise_activation,
                              forward_weights(static_cast<const S*>(args.pointwise_kernel),
                                              channels, filters, args.packed_kernel),
                              finish_of<S>(args),
                              static_cast<S*>(args.y)};
  const SeparablePlan plan = plan_separable_forward<S>(
      g, filters, args.packed_kernel != nullptr, runner.concurrency(), args.overrule.schedule);
  // Of weights that are not finite, see exact.h.
  if (plan.in_steps || !all_finite(call.kernel, weights))
    separable_in_steps(g, call, runner);
  else
    separable_in_tiles(g, plan, call, runner);
}

// The pointwise kernel's gradient, its depthwise tiles computed anew; as numbers to compute with,
// or rounded.
template <class S, class Stored>
void recomputed_pointwise_gradient(const Geometry& g, const S* x, const Real<S>* kernel,
                                   const S* dy, int64_t filters, Stored* dpointwise,
                                   Runner& runner) {
  using T = Real<S>;
  using M = Multiplied<S>;
  const int64_t channels = g.c * g.m, pixels = g.ho * g.wo;
  const int64_t size = channels * filters, all = g.n * pixels;
  if (!all_finite(kernel, g.kh * g.kw * channels)) {
    Workspace<S> middle(g.n * pixels * channels);
    exact_forward<S>(g, x, kernel, nullptr, Activation::none, middle.get(), runner);
    pointwise_kernel_gradient<S>({g.n, pixels, channels, filters, g.channels_first}, middle.get(),
                                 dy, dpointwise, runner);
    return;
  }
  const RecomputePlan plan = plan_recompute<S>(g, filters, runner.concurrency());
  const DepthwiseTiles<S> tiles(g, plan.tiles, plan.band, x, kernel);
  const int64_t units = tiles.tiles.count(g), most = tiles.tiles.pixels(g);
  const int64_t groups = plan.groups, parts = plan.channel_parts;
  const GroupSums<T, Stored> sums(groups, size, dpointwise);
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* scratch) {
    const Range c = channel_part<T>(channels, parts, task % parts);
    const int64_t group = task / parts, width = c.last - c.first;
    const int64_t pitch = pixel_pitch<M>(width);
    M* packed = reinterpret_cast<M*>(scratch);
    M* middle = reinterpret_cast<M*>(scratch + plan.packed);
    T* rest = scratch + plan.packed + plan.tile;
    T* to = sums.of(group) + c.first * filters;
    const int64_t begin = part_start(units, groups, group);
    for (int64_t unit = begin; unit < part_start(units, groups, group + 1); ++unit) {
      const Tile t = tile_at(g, tiles.tiles, unit);
      if (g.channels_first) {
        tiles.planes(t, c.first, c.last, middle, rest);
        add_pointwise_gradient(width, filters, t.pixels(), MatrixA<M>{middle, t.pixels(), 1},
                               dy + t.n * filters * pixels + t.p0 * g.wo, int64_t{1}, pixels,
                               unit != begin, to, packed);
      } else {
        tiles.rows(t, c.first, c.last, middle, pitch, rest);
        tiles.each_run(t, [&](int64_t first, int64_t pixels_here, int64_t pixel) {
          add_pointwise_gradient(width, filters, pixels_here,
                                 MatrixA<M>{middle + first * pitch, 1, pitch}, dy + pixel * filters,
                                 filters, int64_t{1}, unit != begin || first != 0, to, packed,
                                 next_rows(dy, filters, pixel + pixels_here, all, most));
        });
      }
    }
  });
  sums.add_up(runner);
}

// The gradients of one part of the batch; those of weights and biases in Real<S>, or, where the
// part is the whole batch, the pointwise kernel's rounded. Null ones are not wanted.
template <class S>
struct BackwardPart {
  const S* x;
  const Real<S>* kernel;
  const S* pointwise;
  const S* dy;
  int64_t filters;  // 0: the depthwise step alone
  S* dx;
  Real<S>*ddepthwise, *dpointwise, *dbias;
  S* rounded_dpointwise;
};

template <class S>
void depthwise_backward(const Geometry& g, const BackwardPart<S>& args, const S* dy,
                        Runner& runner) {
  if (is_turned<S>(g)) {
    const int64_t in = g.h * g.w, out = g.ho * g.wo;
    const Turned<S> dy_last(g.n, g.c, out, dy, runner), dx_last(g.n, g.c, in, args.dx != nullptr);
    const Turned<S> x_last(g.n, g.c, in, args.ddepthwise == nullptr ? nullptr : args.x, runner);
    BackwardPart<S> last = args;
    last.x = x_last.get();
    last.dx = dx_last.get();
    depthwise_backward<S>(turned(g), last, dy_last.get(), runner);
    dx_last.put_back(args.dx, runner);
    return;
  }
  if (args.dx != nullptr) depthwise_input_gradient<S>(g, dy, args.kernel, args.dx, runner);
  if (args.ddepthwise != nullptr)
    depthwise_kernel_gradient<S>(g, args.x, dy, args.ddepthwise, runner);
}

template <class S>
void backward_part(const Geometry& g, const BackwardPart<S>& args, Runner& runner) {
  const int64_t channels = g.c * g.m, pixels = g.ho * g.wo, filters = args.filters;
  if (args.dbias != nullptr)
    bias_gradient(g.n, pixels, filters != 0 ? filters : channels, g.channels_first, args.dy,
                  args.dbias, runner);
  if (filters == 0) {
    depthwise_backward<S>(g, args, args.dy, runner);
    return;
  }
  const auto pointwise_gradient = [&](auto* to) {
    if (to != nullptr)
      recomputed_pointwise_gradient<S>(g, args.x, args.kernel, args.dy, filters, to, runner);
  };
  pointwise_gradient(args.dpointwise);
  if constexpr (kIsHalf<S>) pointwise_gradient(args.rounded_dpointwise);
  if (args.dx == nullptr && args.ddepthwise == nullptr) return;
  Workspace<S> dmiddle(g.n * pixels * channels);
  pointwise_product<S>(g.n, pixels, g.channels_first,
                       gradient_weights(args.pointwise, channels, filters), args.dy, Finish<S>{},
                       dmiddle.get(), runner);
  depthwise_backward<S>(g, args, dmiddle.get(), runner);
}

// A gradient that is summed over the parts of a batch in Real<S>, and rounded once. Of a half type
// and with a single part (`alone`), what sums it up can round it on the way: no array is between.
template <class S>
class BatchSum {
 public:
  BatchSum(void* total, int64_t size, bool alone = false)
      : rounded_(kIsHalf<S> && alone ? static_cast<S*>(total) : nullptr),
        total_(rounded_ == nullptr ? static_cast<S*>(total) : nullptr, size),
        sum_(total_.get(), size) {}
  Real<S>* get(bool first_part) const { return sum_.get(first_part); }
  S* rounded() const { return rounded_; }
  void add(bool first_part, Runner& runner) const { sum_.add(first_part, runner); }
  void write(Runner& runner) const { total_.write(runner); }

 private:
  S* rounded_;
  RealResult<S> total_;
  PartSum<Real<S>> sum_;
};

// Every gradient reads dy, or the depthwise result's gradient, so a large batch is computed in
// parts that the caches hold. Memory for the depthwise result's gradient is needed for one part
// only.
template <class S>
void backward_all(const Geometry& g, const Backward& args, Runner& runner) {
  const int64_t channels = g.c * g.m, pixels = g.ho * g.wo, taps = g.kh * g.kw * channels;
  const int64_t filters = args.separable() ? args.filters : channels;
  const int64_t in = g.h * g.w * g.c, out = pixels * filters;
  const RealValues<S> kernel(static_cast<const S*>(args.depthwise_kernel), taps);
  const BatchSum<S> ddepthwise(args.ddepthwise, taps);
  const int64_t together = images_backward<Real<S>>(g, args.filters);
  const BatchSum<S> dpointwise(args.dpointwise, args.separable() ? channels * filters : 0,
                               g.n <= together);
  const BatchSum<S> dbias(args.dbias, filters);
  const BatchSum<S>* const sums[] = {&ddepthwise, &dpointwise, &dbias};
  Geometry part = g;
  each_part(g.n, together, [&](int64_t first, int64_t count, bool first_part) {
    part.n = count;
    const auto at = [&](const void* all, int64_t size) {
      return all == nullptr ? nullptr : static_cast<const S*>(all) + first * size;
    };
    S* const dx = args.dx == nullptr ? nullptr : static_cast<S*>(args.dx) + first * in;
    backward_part<S>(part,
                     {at(args.x, in), kernel.get(), static_cast<const S*>(args.pointwise_kernel),
                      at(args.dy, out), args.filters, dx, ddepthwise.get(first_part),
                      dpointwise.get(first_part), dbias.get(first_part), dpointwise.rounded()},
                     runner);
    for (const BatchSum<S>* sum : sums) sum->add(first_part, runner);
  });
  for (const BatchSum<S>* sum : sums) sum->write(runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
