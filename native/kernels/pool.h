// The largest number or the mean of each window, of the pixels inside the image. Arrays are of S,
// arithmetic is of T, which is float32 for a half type.
#pragma once
#include "array_tasks.h"
#include "fold.h"
#include "planar.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// What a row of outputs sees: the taps of the kernel's rows that are inside the image.
struct PoolRow {
  PoolRow(const Geometry& g, int64_t row)
      : start(row * g.sh - g.pt), taps(taps_inside(start, g.kh, g.dh, g.h)) {}
  int64_t start;
  Range taps;
  int64_t count() const { return taps.last - taps.first; }
  int64_t input(const Geometry& g, int64_t tap) const { return start + tap * g.dh; }
};

// The mean's divisor; 1 of a largest number.
template <class T>
T pool_divisor(const PoolStep& step, int64_t pixels) {
  return step.average ? static_cast<T>(pixels) : T(1);
}

// ---- channels_last: a few vectors of channels at a time

template <class S, class R>
void pool_row(const Geometry& g, const PoolStep& step, const S* image, int64_t row, S* y,
              const R& r) {
  using T = Real<S>;
  const PoolRow rows(g, row);
  for (int64_t column = 0; column < g.wo; ++column) {
    const int64_t start = column * g.sw - g.pl;
    const Range taps = taps_inside(start, g.kw, g.dw, g.w);
    const Vec<T> divisor =
        broadcast(pool_divisor<T>(step, rows.count() * (taps.last - taps.first)));
    for_wide_columns<T>(g.c, [&]<int kVectors>(int64_t channel, auto lanes) {
      Vec<T> totals[kVectors];
      for (Vec<T>& total : totals) total = broadcast(R::start);
      for (int64_t i = rows.taps.first; i < rows.taps.last; ++i) {
        const S* const pixels = image + (rows.input(g, i) * g.w + start) * g.c + channel;
        for (int64_t k = taps.first; k < taps.last; ++k)
          for (int v = 0; v < kVectors; ++v)
            totals[v] = r(totals[v], lanes.get(pixels + k * g.dw * g.c + v * kLanes<T>));
      }
      S* const to = y + column * g.c + channel;
      for (int v = 0; v < kVectors; ++v)
        lanes.put(to + v * kLanes<T>, step.average ? totals[v] / divisor : totals[v]);
    });
  }
}

template <class S, class R>
void pool_images(const Geometry& g, const PoolStep& step, Runner& runner, const R& r) {
  const S* x = static_cast<const S*>(step.x);
  S* const y = static_cast<S*>(step.y);
  for_ranges(runner, g.n * g.ho, g.wo * g.c * g.kh * g.kw, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      pool_row<S>(g, step, x + row / g.ho * g.h * g.w * g.c, row % g.ho, y + row * g.wo * g.c, r);
  });
}

// ---- channels_first: the rows of a window into one, then along it

// `scratch` has room for g.w + 2 * g.wo elements.
template <class S, class T, class R>
void pool_plane_row(const Geometry& g, const PoolStep& step, const S* plane, int64_t row, S* y,
                    T* scratch, const R& r) {
  const PoolRow rows(g, row);
  for_wide_columns<T>(g.w, [&]<int kVectors>(int64_t column, auto lanes) {
    Vec<T> totals[kVectors];
    fold_columns<T>(plane + rows.input(g, rows.taps.first) * g.w + column, rows.count(), g.dh * g.w,
                    r, lanes, totals);
    for (int v = 0; v < kVectors; ++v) lanes.put(scratch + column + v * kLanes<T>, totals[v]);
  });
  const auto one = [&](int64_t column) {
    const int64_t start = column * g.sw - g.pl;
    const Range taps = taps_inside(start, g.kw, g.dw, g.w);
    T total = R::start;
    for (int64_t k = taps.first; k < taps.last; ++k)
      total = r.one(total, scratch[start + k * g.dw]);
    y[column] =
        rounded_to<S>(total / pool_divisor<T>(step, rows.count() * (taps.last - taps.first)));
  };
  // Columns whose windows are inside the image, a tap of all of them after the other.
  const Range inside = outputs_inside(g.wo, g.kw, g.sw, g.dw, g.pl, g.w);
  const int64_t count = inside.last - inside.first;
  const T* const from = scratch + inside.first * g.sw - g.pl;
  T* const line = scratch + g.w;
  T* to;
  if constexpr (kIsHalf<S>)
    to = line + g.wo;
  else
    to = y + inside.first;
  const Vec<T> divisor = broadcast(pool_divisor<T>(step, rows.count() * g.kw));
  for (int64_t column = 0; column < inside.first; ++column) one(column);
  for (int64_t k = 0; k < g.kw && count > 0; ++k) {
    const T* values = from + k * g.dw;
    if (g.sw != 1) {
      gather_run(values, g.sw, count, line);
      values = line;
    }
    for_columns<T>(count, [&](int64_t at, auto lanes) {
      const Vec<T> total =
          k == 0 ? lanes.get(values + at) : r(lanes.get(to + at), lanes.get(values + at));
      lanes.put(to + at, step.average && k == g.kw - 1 ? total / divisor : total);
    });
  }
  if constexpr (kIsHalf<S>) convert_run(to, count, y + inside.first);
  for (int64_t column = inside.last; column < g.wo; ++column) one(column);
}

template <class S, class R>
void pool_planes(const Geometry& g, const PoolStep& step, Runner& runner, const R& r) {
  using T = Real<S>;
  const S* x = static_cast<const S*>(step.x);
  S* const y = static_cast<S*>(step.y);
  const int64_t work = g.w * g.kh + g.wo * g.kw;
  for_ranges_with<T>(runner, g.n * g.c * g.ho, work, g.w + 2 * g.wo,
                     [&](int64_t first, int64_t last, T* scratch) {
                       for (int64_t row = first; row < last; ++row)
                         pool_plane_row<S>(g, step, x + row / g.ho * g.h * g.w, row % g.ho,
                                           y + row * g.wo, scratch, r);
                     });
}

// ---- either

template <class S, class R>
void pool_by(const Geometry& g, const PoolStep& step, Runner& runner, const R& r) {
  g.channels_first ? pool_planes<S>(g, step, runner, r) : pool_images<S>(g, step, runner, r);
}

template <class S>
void pool_windows(const Geometry& g, const PoolStep& step, Runner& runner) {
  using T = Real<S>;
  step.average ? pool_by<S>(g, step, runner, Sum<T>{}) : pool_by<S>(g, step, runner, Largest<T>{});
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
