// The 1x1 convolution over whole tensors, as plan_pointwise.h has planned it: product and kernel
// gradient, in either layout.
#pragma once
#include "gemm.h"
#include "plan_pointwise.h"
#include "sums.h"
#include "turned.h"
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
  const Multiplied<T>* packed = nullptr;  // as pack_weights() put them; `data` is not read then
};

// B as a product of weights of T takes it.
template <class T>
using WeightsB = MatrixB<Multiplied<T>, T>;

// Elements of packed weights: panels, or for channels_first one row for each output.
template <class T>
int64_t packed_weights_elements(const Weights<T>& w, bool channels_first) {
  return channels_first ? w.depth * w.outputs : packed_elements<Multiplied<T>>(w.depth, w.outputs);
}

template <class T>
void turn_weights(const Weights<T>& w, Multiplied<T>* rows) {
  if constexpr (!kSame<Multiplied<T>, T>) {
    if (w.output_step == 1) {
      constexpr int64_t kRun = 64;
      Multiplied<T> run[kRun];
      for (int64_t n0 = 0; n0 < w.outputs; n0 += kRun) {
        const int64_t count = min_of(kRun, w.outputs - n0);
        for (int64_t k = 0; k < w.depth; ++k) {
          convert_run(w.data + k * w.depth_step + n0, count, run);
          for (int64_t n = 0; n < count; ++n) rows[(n0 + n) * w.depth + k] = run[n];
        }
      }
      return;
    }
    if (w.depth_step == 1) {
      for (int64_t n = 0; n < w.outputs; ++n)
        convert_run(w.data + n * w.output_step, w.depth, rows + n * w.depth);
      return;
    }
  }
  for (int64_t k = 0; k < w.depth; ++k)
    for (int64_t n = 0; n < w.outputs; ++n)
      rows[n * w.depth + k] =
          converted_to<Multiplied<T>>(w.data[k * w.depth_step + n * w.output_step]);
}

template <class T>
void pack_weights(const Weights<T>& w, bool channels_first, Multiplied<T>* packed) {
  if (channels_first)
    turn_weights(w, packed);
  else
    pack(w.depth, w.outputs, w.data, w.depth_step, w.output_step, packed);
}

// Weights cut into parts of the outputs. Each thread packs a part itself, which is faster than
// reading another core's cache.
template <class T>
class WeightParts {
  using M = Multiplied<T>;

 public:
  WeightParts(const Weights<T>& w, const Cut& filter_parts) : w_(w), filter_parts_(filter_parts) {}

  // A part, for a product that may have to fill its panels.
  WeightsB<T> get(int64_t filter_part, Kept* kept) const {
    const int64_t begin = filter_parts_.first(filter_part);
    if (w_.packed != nullptr) return filled<M, T>(w_.packed + panel_start<M>(w_.depth, begin));
    WeightsB<T> b{static_cast<M*>(kept->memory)};
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
  using M = Multiplied<T>;

 public:
  PackedWeights(const Weights<T>& w, Runner& runner)
      : given_(w.packed), packed_(given_ != nullptr ? 0 : packed_elements<M>(w.depth, w.outputs)) {
    if (given_ != nullptr) return;
    const int64_t count = panels<M>(w.outputs);
    const int64_t tasks = min_of(count, parts(w.depth * w.outputs, tuning::kPlainTaskElements));
    parallel<T>(runner, tasks, 0, [&](int64_t task, T*) {
      const int64_t first = part_start(count, tasks, task) * kPanel<M>;
      const int64_t last = min_of(part_start(count, tasks, task + 1) * kPanel<M>, w.outputs);
      pack(w.depth, last - first, w.data + first * w.output_step, w.depth_step, w.output_step,
           packed_.get() + panel_start<M>(w.depth, first));
    });
  }
  WeightsB<T> all() const { return filled<M, T>(given_ != nullptr ? given_ : packed_.get()); }

 private:
  const M* const given_;
  Workspace<M> packed_;
};

// Weights as rows of one output each, contiguous along the depth.
template <class T>
class WeightRows {
  using M = Multiplied<T>;

 public:
  explicit WeightRows(const Weights<T>& w)
      : copy_(w.packed != nullptr || is_read(w) ? 0 : w.depth * w.outputs),
        matrix_{w.packed, w.depth, 1} {
    if (w.packed != nullptr) return;
    if constexpr (kSame<M, T>) {
      if (is_read(w)) {
        matrix_ = {w.data, w.output_step, w.depth_step};
        return;
      }
    }
    turn_weights(w, copy_.get());
    matrix_ = {copy_.get(), w.depth, 1};
  }
  const MatrixA<M>& matrix() const { return matrix_; }

 private:
  // Whether they are read where they are.
  static bool is_read(const Weights<T>& w) { return kSame<M, T> && w.depth_step == 1; }

  Workspace<M> copy_;
  MatrixA<M> matrix_;
};

// The epilogue of a product: y = activation(x * weights + bias + residual).
template <class T>
struct Finish {
  const T* bias = nullptr;      // one value an output channel
  const T* residual = nullptr;  // of the shape of y
  Activation activation = Activation::none;

  // For outputs from channel `channel` on, of which the first is element `element` of y.
  Epilogue<Real<T>, T> at(bool channels_first, int64_t channel, int64_t element) const {
    Epilogue<Real<T>, T> e;
    e.activation = activation;
    if (residual != nullptr) e.addend = residual + element;
    if (bias != nullptr) (channels_first ? e.row_bias : e.column_bias) = bias + channel;
    return e;
  }
};

// y[n, p, o] = sum_k x[n, p, k] * weights[k, o] and what follows, channels_last. x and weights are
// of T, y and what is added to it of Stored: T or Real<T>.
template <class T, class Stored>
void product_last(const ProductPlan& plan, const Weights<T>& w, const T* x,
                  const Finish<Stored>& finish, Stored* y, Runner& runner) {
  using M = Multiplied<T>;
  using P = ProductInto<M, Stored>;
  const WeightParts<T> weights(w, plan.filter_parts);
  const Cut &tiles = plan.tiles, &filter_parts = plan.filter_parts;
  parallel_keeping<M>(
      runner, plan.tasks, plan.scratch, plan.kept, [&](int64_t task, M* scratch, Kept* kept) {
        const int64_t filter_part = task / tiles.count, tile = task % tiles.count;
        const int64_t first = tiles.first(tile), count = tiles.first(tile + 1) - first;
        const int64_t o0 = filter_parts.first(filter_part),
                      o1 = filter_parts.first(filter_part + 1);
        WeightsB<T> b = weights.get(filter_part, kept);
        if (plan.ahead && filter_part == 0) prefetch(x + first * w.depth, count * w.depth);
        // The product of rows from `row` on.
        const auto product = [&](int64_t row, int64_t rows, const MatrixA<M>& a) {
          const int64_t element = row * w.outputs + o0;
          multiply<false, M, P>(rows, o1 - o0, w.depth, a, b, y + element, w.outputs,
                                finish.at(false, o0, element));
        };
        if constexpr (!ConvertedRows<T>::kNeeded) {
          product(first, count, {x + first * w.depth, w.depth, 1});
        } else {
          const ConvertedRows<T> converted(w.depth, tiles.most);
          for (int64_t row = first; row < first + count; row += converted.most) {
            const int64_t rows = min_of(converted.most, first + count - row);
            for (int64_t i = 0; i < rows; ++i)
              convert_run(x + (row + i) * w.depth, w.depth, scratch + i * converted.pitch);
            product(row, rows, {scratch, converted.pitch, 1});
            b.source = nullptr;  // its panels are filled now
          }
        }
      });
}

// The same, channels_first.
template <class T, class Stored>
void product_first(const ProductPlan& plan, int64_t pixels, const Weights<T>& w, const T* x,
                   const Finish<Stored>& finish, Stored* y, Runner& runner) {
  using M = Multiplied<T>;
  const WeightRows<T> weights(w);
  const int64_t tiles = plan.tiles.count, filter_parts = plan.filter_parts.count;
  parallel<M>(runner, plan.tasks, plan.scratch, [&](int64_t task, M* packed) {
    const int64_t part = task % filter_parts, tile = task / filter_parts % tiles;
    const int64_t n = task / filter_parts / tiles;
    const int64_t first = plan.tiles.first(tile), count = plan.tiles.first(tile + 1) - first;
    const int64_t o0 = plan.filter_parts.first(part), o1 = plan.filter_parts.first(part + 1);
    pack(w.depth, count, x + n * w.depth * pixels + first, pixels, int64_t{1}, packed);
    const int64_t element = (n * w.outputs + o0) * pixels + first;
    multiply<false, M, ProductInto<M, Stored>>(o1 - o0, count, w.depth, weights.matrix().at(o0, 0),
                                               MatrixB<M>{packed}, y + element, pixels,
                                               finish.at(true, o0, element));
  });
}

template <class T, class Stored = T>
void pointwise_product(int64_t images, int64_t pixels, bool channels_first, const Weights<T>& w,
                       const T* x, const Finish<Stored>& finish, Stored* y, Runner& runner) {
  const ProductPlan plan =
      plan_product<T>(images, pixels, channels_first, w.depth, w.outputs, w.packed != nullptr);
  if (channels_first)
    product_first(plan, pixels, w, x, finish, y, runner);
  else
    product_last(plan, w, x, finish, y, runner);
}

// The product of `pixels` pixels, added to dkernel [channels, filters] or put there: `a` is
// (channel, pixel), element (pixel, filter) of dy is dy[pixel * dy_pixel + filter * dy_filter].
// `packed` is scratch of gradient_elements(), of the type that both are multiplied as; `next` what
// of dy comes after.
template <class X, class T, class M>
void add_pointwise_gradient(int64_t channels, int64_t filters, int64_t pixels, const MatrixA<X>& a,
                            const T* dy, int64_t dy_pixel, int64_t dy_filter, bool accumulate,
                            Real<M>* dkernel, M* packed, const Prefetcher& next = {}) {
  using P = ProductInto<M, Real<M>>;
  const bool rows_of_filters = dy_filter == 1;
  if (!rows_of_filters) pack(pixels, filters, dy, dy_pixel, dy_filter, packed);
  const MatrixB<M, T> b =
      rows_of_filters ? MatrixB<M, T>{packed, dy, dy_pixel, true} : MatrixB<M, T>{packed};
  typename P::Epilogue e;
  if (accumulate) e.addend = dkernel;
  M* rows = packed + packed_elements<M>(pixels, rows_of_filters ? kPanel<M> : filters);
  if (a.row == 1) {
    pack_rows(channels, pixels, a, rows);
    multiply<true, M, P>(channels, filters, pixels, MatrixA<M>{rows, 1, 1}, b, dkernel, filters, e,
                         next);
    return;
  }
  MatrixA<M> in_place{rows, pixels, 1};
  if constexpr (kSame<X, M>) {
    in_place = a;
  } else {
    for (int64_t c = 0; c < channels; ++c)
      convert_run(a.data + c * a.row, pixels, rows + c * pixels);
  }
  multiply<false, M, P>(channels, filters, pixels, in_place, b, dkernel, filters, e, next);
}

// The rows of dy after pixel `pixel` of `pixels`, at most `most`.
template <class T>
Prefetcher next_rows(const T* dy, int64_t filters, int64_t pixel, int64_t pixels, int64_t most) {
  return {dy + pixel * filters, min_of(most, pixels - pixel) * filters};
}

// As planned, whether for this problem or for the one that is exchanged.
template <class T, class Stored>
void planned_kernel_gradient(const ProductGradientPlan& plan, const Pointwise& s, const T* x,
                             const T* dy, Stored* dkernel, Runner& runner) {
  using M = Multiplied<T>;
  const int64_t groups = plan.groups, parts = plan.channel_parts;
  const int64_t tiles = plan.tiles.count, pixels = plan.tiles.total;
  const int64_t units = plan.images * tiles;
  const int64_t size = s.channels * s.filters;
  const GroupSums<Real<T>, Stored> sums(groups, size, dkernel);
  parallel<M>(runner, plan.tasks, plan.scratch, [&](int64_t task, M* packed) {
    const Range c = channel_part<Real<T>>(s.channels, parts, task % parts);
    const int64_t group = task / parts, begin = part_start(units, groups, group);
    for (int64_t unit = begin; unit < part_start(units, groups, group + 1); ++unit) {
      const int64_t n = unit / tiles, tile = unit % tiles;
      const int64_t first = plan.tiles.first(tile);
      const int64_t count = plan.tiles.first(tile + 1) - first;
      Real<T>* to = sums.of(group) + c.first * s.filters;
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

// As T or in Real<T>.
template <class T, class Stored>
void pointwise_kernel_gradient(const Pointwise& s, const T* x, const T* dy, Stored* dkernel,
                               Runner& runner) {
  const ProductGradientPlan plan = plan_product_gradient<T>(s, runner.concurrency());
  if (!plan.exchanged) {
    planned_kernel_gradient(plan, s, x, dy, dkernel, runner);
    return;
  }
  const Turned<Stored> transposed(1, s.channels, s.filters, true);
  planned_kernel_gradient(plan, with_exchanged(s), dy, x, transposed.get(), runner);
  transposed.put_back(dkernel, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
