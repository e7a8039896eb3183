// The 1x1 convolution over whole tensors: product and kernel gradient, in either layout.
#pragma once
#include "../operation.h"
#include "../tuning.h"
#include "gemm.h"
#include "sums.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Rows of a product cut into tiles of whole micro-kernels, smaller ones where there are many, so
// that the last few tasks leave no thread idle for long.
class RowTiles {
 public:
  // `least` tiles, where there are rows enough.
  explicit RowTiles(int64_t rows, int64_t least = 1) : rows_(rows), units_(ceil_div(rows, kRows)) {
    const bool many = rows >= tuning::kManyTiles * tuning::kTilePixels;
    const int64_t wanted = many ? tuning::kTilePixels / 2 : tuning::kTilePixels;
    count = max_of(ceil_div(units_, wanted / kRows), min_of(least, units_));
    count = shareable(count, units_);
  }
  int64_t count;
  int64_t first(int64_t tile) const {
    return min_of(part_start(units_, count, tile) * kRows, rows_);
  }
  int64_t most() const { return ceil_div(units_, count) * kRows; }

 private:
  int64_t rows_, units_;
};

// Asks for contiguous memory ahead of its use, where rows far apart would hide it from the
// processor's own prefetching.
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

// In the order of a layout's products: panels, or for channels_first a row an output.
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

// Weights cut into blocks of outputs, each packed by whoever computes with it: that is done before
// one core has another's from its cache.
template <class T>
class WeightBlocks {
 public:
  // At least `wanted` blocks, where there are panels enough.
  WeightBlocks(const Weights<T>& w, int64_t wanted) : w_(w), panels_(panels<T>(w.outputs)) {
    const int64_t panel_bytes =
        panel_elements<T>(max_of(1, w.depth)) * static_cast<int64_t>(sizeof(T));
    const int64_t most = max_of(1, tuning::kOwnWeightBytes / panel_bytes);
    count = max_of(1, max_of(ceil_div(panels_, most), min_of(wanted, panels_)));
  }

  int64_t count;
  int64_t first(int64_t block) const {
    return min_of(part_start(panels_, count, block) * kPanel<T>, w_.outputs);
  }
  // Elements for one block, of a thread's own and kept from task to task.
  int64_t elements() const {
    return w_.packed != nullptr ? 0
                                : max_of(1, ceil_div(panels_, count) * panel_elements<T>(w_.depth));
  }
  // A block, for a product that may have to fill its panels.
  MatrixB<T> get(int64_t block, Kept* kept) const {
    const int64_t begin = first(block);
    if (w_.packed != nullptr) return filled(w_.packed + panel_start<T>(w_.depth, begin));
    MatrixB<T> b{static_cast<T*>(kept->memory)};
    if (kept->content == block) return b;
    kept->content = block;
    const T* source = w_.data + begin * w_.output_step;
    if (w_.output_step == 1) return {b.panels, source, w_.depth_step};
    pack(w_.depth, first(block + 1) - begin, source, w_.depth_step, w_.output_step, b.panels);
    return b;
  }

 private:
  const Weights<T> w_;
  const int64_t panels_;
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

// Into how many groups of whole panels (or of kRows rows) `outputs` are cut to make enough tasks
// of `tasks`.
inline int64_t output_parts(int64_t tasks, int64_t outputs, int64_t granule) {
  return max_of(1, min_of(tuning::kTasks / max_of(1, tasks), outputs / granule));
}

// What follows a product: y = activation(x * weights + bias + residual).
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
void product_last(int64_t rows, const Weights<T>& w, const T* x, const Finish<T>& finish, T* y,
                  Runner& runner) {
  // Where there are more rows than outputs, rows are cut more finely: that each thread packs all
  // weights costs less than that it reads all of x.
  constexpr int64_t kMany = 1 << 20;  // so that the product cannot overflow
  const int64_t wanted = min_of(
      tuning::kTasks, (min_of(rows, kMany) * min_of(w.depth, kMany) * min_of(w.outputs, kMany)) >>
                          tuning::kTaskProductsLog2);
  const bool tall = w.outputs <= rows;
  const WeightBlocks<T> blocks(w, tall ? 1 : wanted / max_of(1, RowTiles(rows).count));
  // An odd number of blocks is no even work for two threads, until the rows are cut.
  const RowTiles tiles(rows, tall ? min_of(wanted, 8) : blocks.count % 2 == 0 ? 1 : 2);
  const bool far = rows * w.depth * static_cast<int64_t>(sizeof(T)) > tuning::kFarBytes;
  parallel_keeping<T>(
      runner, tiles.count * blocks.count, 0, blocks.elements(), [&](int64_t task, T*, Kept* kept) {
        const int64_t block = task / tiles.count, tile = task % tiles.count;
        const int64_t first = tiles.first(tile), count = tiles.first(tile + 1) - first;
        const int64_t o0 = blocks.first(block), o1 = blocks.first(block + 1);
        const MatrixB<T> b = blocks.get(block, kept);
        if (far && block == 0) prefetch(x + first * w.depth, count * w.depth);
        const int64_t element = first * w.outputs + o0;
        multiply(count, o1 - o0, w.depth, MatrixA<T>{x + first * w.depth, w.depth, 1}, b,
                 y + element, w.outputs, finish.at(false, o0, element));
      });
}

// The same, channels_first.
template <class T>
void product_first(int64_t images, int64_t pixels, const Weights<T>& w, const T* x,
                   const Finish<T>& finish, T* y, Runner& runner) {
  const WeightRows<T> weights(w);
  const int64_t tiles = ceil_div(pixels, 2 * tuning::kTilePixels);
  const int64_t split = output_parts(images * tiles, w.outputs, 4 * kRows);
  const int64_t most = ceil_div(pixels, tiles);
  parallel<T>(runner, images * tiles * split, packed_elements<T>(w.depth, most),
              [&](int64_t task, T* packed) {
                const int64_t part = task % split, tile = task / split % tiles;
                const int64_t n = task / split / tiles;
                const int64_t first = part_start(pixels, tiles, tile);
                const int64_t count = part_start(pixels, tiles, tile + 1) - first;
                const int64_t o0 = part_start(w.outputs, split, part);
                const int64_t o1 = part_start(w.outputs, split, part + 1);
                pack(w.depth, count, x + n * w.depth * pixels + first, pixels, int64_t{1}, packed);
                const int64_t element = (n * w.outputs + o0) * pixels + first;
                multiply(o1 - o0, count, w.depth, weights.matrix().at(o0, 0), MatrixB<T>{packed},
                         y + element, pixels, finish.at(true, o0, element));
              });
}

template <class T>
void pointwise_product(int64_t images, int64_t pixels, bool channels_first, const Weights<T>& w,
                       const T* x, const Finish<T>& finish, T* y, Runner& runner) {
  if (channels_first)
    product_first(images, pixels, w, x, finish, y, runner);
  else
    product_last(images * pixels, w, x, finish, y, runner);
}

// Pixels whose product is added to a kernel's gradient at a time.
inline constexpr int64_t kGradientPixels = 4 * tuning::kTilePixels;

// How the gradient of a [channels, filters] kernel is shared out: `groups` of pixels with partial
// sums of their own, times `split` ranges of channels.
struct GradientCut {
  int64_t groups, split;
};

// `units` of work over `pixels` pixels. Results depend on the groups, which hence are as many
// whatever the threads: so few that adding them up costs little. Each range of channels reads all
// of dy, so those are as many as keep the threads busy, all of them to the end if it can be.
template <class T>
GradientCut gradient_cut(int64_t units, int64_t pixels, int64_t channels, int64_t filters,
                         bool may_split, int64_t threads) {
  const int64_t bytes = channels * filters * static_cast<int64_t>(sizeof(T));
  const int64_t most = group_count(min_of(units, pixels / tuning::kGroupPixels), bytes);
  int64_t groups = 1;
  while (2 * groups <= most) groups *= 2;
  if (!may_split) return {groups, 1};
  int64_t split = min_of(ceil_div(4 * threads, groups), channels / (16 * kRows));
  if (groups * split < 2 * threads)
    split = min_of(ceil_div(2 * threads, groups), channels / kPanel<T>);
  for (int64_t even = split; groups * even >= threads; --even)
    if (groups * even % threads == 0) return {groups, even};
  return {groups, max_of(1, split)};
}

// The product of `pixels` pixels, added to dkernel [channels, filters] or put there: `a` is
// (channel, pixel), element (pixel, filter) of dy is dy[pixel * dy_pixel + filter * dy_filter].
// `packed` is scratch of gradient_elements(), `next` what of dy comes after.
template <class T>
void add_pointwise_gradient(int64_t channels, int64_t filters, int64_t pixels, const MatrixA<T>& a,
                            const T* dy, int64_t dy_pixel, int64_t dy_filter, bool accumulate,
                            T* dkernel, T* packed, const Ahead& next = {}) {
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

// What comes after pixel `pixel` of `pixels` of dy, `most` pixels of it.
template <class T>
Ahead next_rows(const T* dy, int64_t filters, int64_t pixel, int64_t pixels, int64_t most) {
  return {dy + pixel * filters, min_of(most, pixels - pixel) * filters};
}

template <class T>
int64_t gradient_elements(int64_t channels, int64_t filters, int64_t pixels, bool channels_first) {
  return packed_elements<T>(pixels, channels_first ? filters : kPanel<T>) +
         packed_rows_elements<T>(channels, pixels);
}

// The widest of `split` ranges of channels: the last takes what is no whole vector.
template <class T>
int64_t widest_range(int64_t channels, int64_t split) {
  return split == 1 ? channels : ceil_div(channels, split) + 3 * kLanes<T>;
}

template <class T>
void pointwise_kernel_gradient(const Pointwise& s, const T* x, const T* dy, T* dkernel,
                               Runner& runner) {
  const int64_t images = s.channels_first ? s.images : 1;
  const int64_t pixels = s.channels_first ? s.pixels : s.images * s.pixels;
  const int64_t least = ceil_div(pixels, kGradientPixels);
  const auto [groups, split] = gradient_cut<T>(images * least, images * pixels, s.channels,
                                               s.filters, true, runner.concurrency());
  const int64_t tiles = images == 1 ? round_up(least, groups) : least;
  const int64_t units = images * tiles;
  const int64_t size = s.channels * s.filters;
  const GroupSums<T> sums(groups, size, dkernel);
  const int64_t most = ceil_div(pixels, tiles);
  parallel<T>(
      runner, groups * split,
      gradient_elements<T>(widest_range<T>(s.channels, split), s.filters, most, s.channels_first),
      [&, groups = groups, split = split](int64_t task, T* packed) {
        const TapRange c = channel_range<T>(s.channels, split, task % split);
        const int64_t group = task / split, begin = part_start(units, groups, group);
        for (int64_t unit = begin; unit < part_start(units, groups, group + 1); ++unit) {
          const int64_t n = unit / tiles, tile = unit % tiles;
          const int64_t first = part_start(pixels, tiles, tile);
          const int64_t count = part_start(pixels, tiles, tile + 1) - first;
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
                                   packed, next_rows(dy, s.filters, first + count, pixels, most));
        }
      });
  sums.add_up(runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
