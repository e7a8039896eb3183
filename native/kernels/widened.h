// Tensors of a half type in float32, as much as a task needs of them: windows of pixels, copied to
// scratch for the kernels of float32, and the tiles of results that these leave in scratch, which
// are rounded on their way out. Of float32 and float64 themselves nothing is copied.
#pragma once
#include "../tuning.h"
#include "activation.h"
#include "batch_parts.h"
#include "half.h"
#include "parallel.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Weights or biases as numbers to compute with: where they are, or widened for the call. Null stays
// null.
template <class S>
class RealValues {
 public:
  RealValues(const S* values, int64_t count)
      : values_(values), wide_(kIsHalf<S> && values != nullptr ? count : 0) {
    if constexpr (kIsHalf<S>) {
      if (values != nullptr) convert_run(values, count, wide_.get());
    }
  }
  const Real<S>* get() const {
    if constexpr (kIsHalf<S>)
      return wide_.get();
    else
      return values_;
  }

 private:
  const S* const values_;
  const Workspace<Real<S>> wide_;
};

// A result of `size` numbers that is computed in Real<S>: where it goes, or in memory of the call
// until write() rounds it. Null stays null.
template <class S>
class RealResult {
 public:
  RealResult(S* result, int64_t size)
      : result_(result), size_(size), wide_(kIsHalf<S> && result != nullptr ? size : 0) {}
  Real<S>* get() const {
    if constexpr (kIsHalf<S>)
      return wide_.get();
    else
      return result_;
  }
  void write(Runner& runner) const {
    if constexpr (kIsHalf<S>) {
      if (result_ == nullptr) return;
      in_parts(runner, size_, [&](int64_t first, int64_t count) {
        convert_run(wide_.get() + first, count, result_ + first);
      });
    }
  }

 private:
  S* const result_;
  const int64_t size_;
  const Workspace<Real<S>> wide_;
};

// Puts `count` numbers where they go, which may be where they are, rounded to S: as S, or as
// float32 where a product of float32 reads them.
template <class S, class Out>
void put_run(const float* from, int64_t count, Out* to) {
  if constexpr (kSame<S, Out>) {
    convert_run(from, count, to);
  } else {
    constexpr int64_t kVec = kLanes<float>;
    int64_t i = 0;
    for (; i + kVec <= count; i += kVec) store_rounded<S>(to + i, load(from + i));
    if (i == count) return;
    store_first(to + i, S::rounded(load_first(from + i, count - i)), count - i);
  }
}

// --- windows -------------------------------------------------------------------------------------

// The channels and columns of a tile that are computed at a time, 0 where tensors are read
// themselves; and the elements of scratch for their windows and for them.
struct WidenedPlan {
  int64_t together = 0, columns = 0;
  int64_t window = 0, tile = 0;
  int64_t elements() const { return window + tile; }
};

// Elements from one pixel of `channels` channels to the next in a widened window: whole vectors,
// and never so that all pixels fall on a few sets of the first cache.
template <class T>
int64_t widened_pitch(int64_t channels) {
  const int64_t pitch = round_up(channels, kLanes<T>);
  return pitch * static_cast<int64_t>(sizeof(T)) % 512 == 0 ? pitch + kLanes<T> : pitch;
}

// The most channels in one of the parts that each_widened_part() makes of `channels` or fewer.
template <class T>
int64_t most_widened(int64_t channels, int64_t together) {
  return min_of(channels, together + kLanes<T> - 1);
}

// The pixels of a window, and of its tile.
struct WidenedPixels {
  int64_t window, tile;
};

// Of boxes of at most `channels` channels and `columns` columns; pixels(columns) are those of such
// a box. `whole` says that channels are not parted. A piece of the columns has twice those that
// it shares with its neighbours, at least, of a kernel that reaches over `reach`.
template <class T, class F>
WidenedPlan plan_widened(int64_t channels, bool whole, int64_t columns, int64_t reach, F&& pixels) {
  constexpr int64_t kRoom = tuning::kWidenedBytes / static_cast<int64_t>(sizeof(T));
  const int64_t few = whole ? channels : min_of(channels, tuning::kWidenedVectors * kLanes<T>);
  const int64_t least = max_of(tuning::kWidenedColumns, 2 * reach);
  WidenedPlan plan{.columns = columns};
  WidenedPixels here = pixels(columns);
  while (plan.columns >= 2 * least && (here.window + here.tile) * few > kRoom) {
    plan.columns = ceil_div(plan.columns, 2);
    here = pixels(plan.columns);
  }
  const int64_t fit = kRoom / max_of(1, here.window + here.tile) / kLanes<T>;
  plan.together =
      whole ? channels : min_of(channels, max_of(fit, tuning::kWidenedVectors) * kLanes<T>);
  const int64_t most = most_widened<T>(channels, plan.together);
  plan.window = here.window * (round_up(most, kLanes<T>) + kLanes<T>);
  plan.tile = here.tile * most;
  return plan;
}

// Calls f(q, c, count) for the pieces [q.first, q.last) of `columns` columns, and for each for
// parts of the channels [c0, c1): of whole vectors, but the last also has the channels that do not
// fill one.
template <class T, class F>
void each_widened_part(const WidenedPlan& plan, int64_t columns, int64_t c0, int64_t c1, F&& f) {
  const int64_t pieces = ceil_div(columns, max_of(1, plan.columns));
  const int64_t parts = ceil_div(c1 - c0, max_of(1, plan.together));
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const Range q{part_start(columns, pieces, piece), part_start(columns, pieces, piece + 1)};
    for (int64_t part = 0; part < parts; ++part) {
      const Range range = channel_part<T>(c1 - c0, parts, part);
      f(q, c0 + range.first, range.last - range.first);
    }
  }
}

// Repeats each of `count` values `m` times.
template <class T>
void repeat_each(const T* from, int64_t count, int64_t m, T* to) {
  if (m == 2) {
    for (int64_t i = 0; i < count; ++i) to[2 * i] = to[2 * i + 1] = from[i];
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    for (int64_t r = 0; r < m; ++r) to[i * m + r] = from[i];
}

// `count` numbers of a half type in float32, each `m` times.
template <class S>
void widen_repeated(const S* from, int64_t count, int64_t m, float* to) {
  if (m == 1) {
    convert_run(from, count, to);
    return;
  }
  constexpr int64_t kRun = 256;
  float run[kRun];
  for (int64_t i = 0; i < count; i += kRun) {
    const int64_t here = min_of(kRun, count - i);
    convert_run(from + i, here, run);
    repeat_each(run, here, m, to + i * m);
  }
}

// A window inside an image [row][column][image_channels] in float32, of channels [c, c + count) if
// each is counted `m` times; then c and count are multiples of m. Its pixels are widened_pitch() of
// `count` apart.
template <class S>
void widen_window(const S* image, int64_t columns, int64_t image_channels, int64_t m,
                  const Window& w, int64_t c, int64_t count, float* to) {
  const int64_t pitch = widened_pitch<float>(count);
  for (int64_t r = 0; r < w.rows; ++r) {
    const S* from = image + ((w.row + r) * columns + w.column) * image_channels + c / m;
    if (count == image_channels * m && count == pitch) {
      widen_repeated(from, w.columns * image_channels, m, to);
      to += w.columns * pitch;
      continue;
    }
    for (int64_t q = 0; q < w.columns; ++q, from += image_channels, to += pitch)
      widen_repeated(from, count / m, m, to);
  }
}

// The correlation `g` of that window alone, whose first output is (p0, q0) and which has
// `out_columns` columns of outputs.
inline Correlation widened_correlation(const Correlation& g, const Window& w, int64_t p0,
                                       int64_t q0, int64_t out_columns, int64_t count) {
  Correlation local = g;
  local.in_h = w.rows;
  local.in_w = w.columns;
  local.channels = widened_pitch<float>(count);
  local.pt = w.row - (p0 * g.sh - g.pt);
  local.pl = w.column - (q0 * g.sw - g.pl);
  local.out_w = out_columns;
  return local;
}

// --- tiles ---------------------------------------------------------------------------------------

// Puts a tile [row][column][channels] where it goes, after a late activation.
template <class S, class Out>
void put_tile(float* tile, int64_t rows, int64_t columns, int64_t channels, Activation activation,
              Out* out, int64_t out_row, int64_t out_pixel) {
  if (is_late(activation))
    activate_late(tile, rows, columns * channels, columns * channels, activation);
  for (int64_t p = 0; p < rows; ++p) {
    const float* from = tile + p * columns * channels;
    Out* to = out + p * out_row;
    if (out_pixel == channels) {
      put_run<S>(from, columns * channels, to);
      continue;
    }
    for (int64_t q = 0; q < columns; ++q, from += channels, to += out_pixel)
      put_run<S>(from, channels, to);
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
