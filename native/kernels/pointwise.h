// The 1x1 convolution over whole tensors, as plan_pointwise.h has planned it: product and kernel
// gradient, in either layout.
#pragma once
#include "gemm.h"
#include "plan_pointwise.h"
#include "sums.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Prefetches contiguous memory where rows far apart would hide it from the processor's own
// prefetching.
template <class T>
inline void prefetch(const T* p, int64_t count) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(p + i, 0, 2);
}

// A [depth, outputs] matrix of weights with any strides.
template <class T>
struct Weights {
  const T* data;
  int64_t depth, outputs;
  int64_t depth_step, output_step;
  const T* packed = nullptr;  // as pack_weights() put them; `data` is not read then
};

// Elements of packed weights: panels, or for channels_first one row for each output.
template <class T>
int64_t packed_weights_elements(const Weights<T>& w, bool channels_first) {
  return channels_first ? w.depth * w.outputs : packed_elements<T>(w.depth, w.outputs);
}

template <class T>
void turn_weights(const Weights<T>& w, T* rows) {
  for (int64_t k = 0; k < w.depth; ++k)
    for (int64_t n = 0; n < w.outputs; ++n)
      rows[n * w.depth + k] = w.data[k * w.depth_step + n * w.output_step];
}

template <class T>
void pack_weights(const Weights<T>& w, bool channels_first, T* packed) {
  if (channels_first)
    turn_weights(w, packed);
  else
    pack(w.depth, w.outputs, w.data, w.depth_step, w.output_step, packed);
}

// Weights cut into parts of the outputs. Each thread packs a part itself, which is faster than
// reading another core's cache.
template <class T>
class WeightParts {
 public:
  WeightParts(const Weights<T>& w, const Cut& filter_parts) : w_(w), filter_parts_(filter_parts) {}

  // A part, for a product that may have to fill its panels.
  MatrixB<T> get(int64_t filter_part, Kept* kept) const {
    const int64_t begin = filter_parts_.first(filter_part);
    if (w_.packed != nullptr) return filled(w_.packed + panel_start<T>(w_.depth, begin));
    MatrixB<T> b{static_cast<T*>(kept->memory)};
    if (kept->content == filter_part) return b;
    kept->content = filter_part;
    const T* source = w_.data + begin * w_.output_step;
    if (w_.output_step == 1) return {b.panels, source, w_.depth_step};
    pack(w_.depth, filter_parts_.first(filter_part + 1) - begin, source, w_.depth_step,
         w_.output_step, b.panels);
    return b;
  }

 private:
  const Weights<T> w_;
  const Cut filter_parts_;
};

// All weights, packed once a call by all threads.
template <class T>
class PackedWeights {
 public:
  PackedWeights(const Weights<T>& w, Runner& runner)
      : given_(w.packed), packed_(given_ != nullptr ? 0 : packed_elements<T>(w.depth, w.outputs)) {
    if (given_ != nullptr) return;
    const int64_t count = panels<T>(w.outputs);
    const int64_t tasks = min_of(count, parts(w.depth * w.outputs, tuning::kPlainTaskElements));
    parallel<T>(runner, tasks, 0, [&](int64_t task, T*) {
      const int64_t first = part_start(count, tasks, task) * kPanel<T>;
      const int64_t last = min_of(part_start(count, tasks, task + 1) * kPanel<T>, w.outputs);
      pack(w.depth, last - first, w.data + first * w.output_step, w.depth_step, w.output_step,
           packed_.get() + panel_start<T>(w.depth, first));
    });
  }
  MatrixB<T> all() const { return filled<T>(given_ != nullptr ? given_ : packed_.get()); }

 private:
  const T* const given_;
  Workspace<T> packed_;
};

// Weights as rows of one output each, contiguous along the depth.
template <class T>
class WeightRows {
 public:
  explicit WeightRows(const Weights<T>& w)
      : copy_(w.packed != nullptr || w.depth_step == 1 ? 0 : w.depth * w.outputs),
        matrix_{w.packed, w.depth, 1} {
    if (w.packed != nullptr) return;
    matrix_ = {w.data, w.output_step, w.depth_step};
    if (w.depth_step == 1) return;
    turn_weights(w, copy_.get());
    matrix_ = {copy_.get(), w.depth, 1};
  }
  const MatrixA<T>& matrix() const { return matrix_; }

 private:
  Workspace<T> copy_;
  MatrixA<T> matrix_;
};

// The epilogue of a product: y = activation(x * weights + bias + residual).
template <class T>
struct Finish {
  const T* bias = nullptr;      // one value an output channel
  const T* residual = nullptr;  // of the shape of y
  Activation activation = Activation::none;

  // For outputs from channel `channel` on, of which the first is element `element` of y.
  typename ProductOf<T>::Epilogue at(bool channels_first, int64_t channel, int64_t element) const {
    typename ProductOf<T>::Epilogue e;
    e.activation = activation;
    if (residual != nullptr) e.addend = residual + element;
    if (bias != nullptr) (channels_first ? e.row_bias : e.column_bias) = bias + channel;
    return e;
  }
};

// y[n, p, o] = sum_k x[n, p, k] * weights[k, o] and what follows, channels_last.
template <class T>
void product_last(const ProductPlan& plan, const Weights<T>& w, const T* x, const Finish<T>& finish,
                  T* y, Runner& runner) {
  const WeightParts<T> weights(w, plan.filter_parts);
  const Cut &tiles = plan.tiles, &filter_parts = plan.filter_parts;
  parallel_keeping<T>(
      runner, plan.tasks, plan.scratch, plan.kept, [&](int64_t task, T*, Kept* kept) {
        const int64_t filter_part = task / tiles.count, tile = task % tiles.count;
        const int64_t first = tiles.first(tile), count = tiles.first(tile + 1) - first;
        const int64_t o0 = filter_parts.first(filter_part),
                      o1 = filter_parts.first(filter_part + 1);
        const MatrixB<T> b = weights.get(filter_part, kept);
        if (plan.ahead && filter_part == 0) prefetch(x + first * w.depth, count * w.depth);
        const int64_t element = first * w.outputs + o0;
        multiply(count, o1 - o0, w.depth, MatrixA<T>{x + first * w.depth, w.depth, 1}, b,
                 y + element, w.outputs, finish.at(false, o0, element));
      });
}

// The same, channels_first.
template <class T>
void product_first(const ProductPlan& plan, int64_t pixels, const Weights<T>& w, const T* x,
                   const Finish<T>& finish, T* y, Runner& runner) {
  const WeightRows<T> weights(w);
  const int64_t tiles = plan.tiles.count, filter_parts = plan.filter_parts.count;
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* packed) {
    const int64_t part = task % filter_parts, tile = task / filter_parts % tiles;
    const int64_t n = task / filter_parts / tiles;
    const int64_t first = plan.tiles.first(tile), count = plan.tiles.first(tile + 1) - first;
    const int64_t o0 = plan.filter_parts.first(part), o1 = plan.filter_parts.first(part + 1);
    pack(w.depth, count, x + n * w.depth * pixels + first, pixels, int64_t{1}, packed);
    const int64_t element = (n * w.outputs + o0) * pixels + first;
    multiply(o1 - o0, count, w.depth, weights.matrix().at(o0, 0), MatrixB<T>{packed}, y + element,
             pixels, finish.at(true, o0, element));
  });
}

template <class T>
void pointwise_product(int64_t images, int64_t pixels, bool channels_first, const Weights<T>& w,
                       const T* x, const Finish<T>& finish, T* y, Runner& runner) {
  const ProductPlan plan =
      plan_product<T>(images, pixels, channels_first, w.depth, w.outputs, w.packed != nullptr);
  if (channels_first)
    product_first(plan, pixels, w, x, finish, y, runner);
  else
    product_last(plan, w, x, finish, y, runner);
}

// The product of `pixels` pixels, added to dkernel [channels, filters] or put there: `a` is
// (channel, pixel), element (pixel, filter) of dy is dy[pixel * dy_pixel + filter * dy_filter].
// `packed` is scratch of gradient_elements(), `next` what of dy comes after.
template <class T>
void add_pointwise_gradient(int64_t channels, int64_t filters, int64_t pixels, const MatrixA<T>& a,
                            const T* dy, int64_t dy_pixel, int64_t dy_filter, bool accumulate,
                            T* dkernel, T* packed, const Prefetcher& next = {}) {
  const bool rows_of_filters = dy_filter == 1;
  if (!rows_of_filters) pack(pixels, filters, dy, dy_pixel, dy_filter, packed);
  const MatrixB<T> b =
      rows_of_filters ? MatrixB<T>{packed, dy, dy_pixel, true} : MatrixB<T>{packed};
  typename ProductOf<T>::Epilogue e;
  if (accumulate) e.addend = dkernel;
  if (a.row != 1) {
    multiply(channels, filters, pixels, a, b, dkernel, filters, e, next);
    return;
  }
  T* rows = packed + packed_elements<T>(pixels, rows_of_filters ? kPanel<T> : filters);
  pack_rows(channels, pixels, a, rows);
  multiply<true>(channels, filters, pixels, MatrixA<T>{rows, 1, 1}, b, dkernel, filters, e, next);
}

// The rows of dy after pixel `pixel` of `pixels`, at most `most`.
template <class T>
Prefetcher next_rows(const T* dy, int64_t filters, int64_t pixel, int64_t pixels, int64_t most) {
  return {dy + pixel * filters, min_of(most, pixels - pixel) * filters};
}

template <class T>
void pointwise_kernel_gradient(const Pointwise& s, const T* x, const T* dy, T* dkernel,
                               Runner& runner) {
  const ProductGradientPlan plan = plan_product_gradient<T>(s, runner.concurrency());
  const int64_t groups = plan.groups, parts = plan.channel_parts;
  const int64_t tiles = plan.tiles.count, pixels = plan.tiles.total;
  const int64_t units = plan.images * tiles;
  const int64_t size = s.channels * s.filters;
  const GroupSums<T> sums(groups, size, dkernel);
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* packed) {
    const Range c = channel_part<T>(s.channels, parts, task % parts);
    const int64_t group = task / parts, begin = part_start(units, groups, group);
    for (int64_t unit = begin; unit < part_start(units, groups, group + 1); ++unit) {
      const int64_t n = unit / tiles, tile = unit % tiles;
      const int64_t first = plan.tiles.first(tile);
      const int64_t count = plan.tiles.first(tile + 1) - first;
      T* to = sums.of(group) + c.first * s.filters;
      if (s.channels_first)
        add_pointwise_gradient(
            c.last - c.first, s.filters, count,
            MatrixA<T>{x + (n * s.channels + c.first) * pixels + first, pixels, 1},
            dy + n * s.filters * pixels + first, int64_t{1}, pixels, unit != begin, to, packed);
      else
        add_pointwise_gradient(c.last - c.first, s.filters, count,
                               MatrixA<T>{x + first * s.channels + c.first, 1, s.channels},
                               dy + first * s.filters, s.filters, int64_t{1}, unit != begin, to,
                               packed,
                               next_rows(dy, s.filters, first + count, pixels, plan.tiles.most));
    }
  });
  sums.add_up(runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
