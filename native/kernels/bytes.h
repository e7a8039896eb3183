// What moves and compares elements of one byte, which are not negative: pools to the largest,
// constants.
#pragma once
#include "array_tasks.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

inline void fill_bytes(const FillStep& step, Runner& runner) {
  uint8_t* const y = static_cast<uint8_t*>(step.y);
  const uint8_t value = static_cast<uint8_t>(step.value);
  for_ranges(runner, step.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) y[i] = value;
  });
}

// The larger of `count` elements and of others, in place.
inline void keep_larger(uint8_t* y, const uint8_t* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] > y[i] ? x[i] : y[i];
}

// A row of outputs. Pixels have `channels` elements; of channels_first, one.
inline void pool_bytes_row(const Geometry& g, int64_t channels, const uint8_t* image, int64_t row,
                           uint8_t* y) {
  const int64_t top = row * g.sh - g.pt;
  const Range rows = taps_inside(top, g.kh, g.dh, g.h);
  fill_zero(y, g.wo * channels);
  for (int64_t column = 0; column < g.wo; ++column, y += channels) {
    const int64_t left = column * g.sw - g.pl;
    const Range columns = taps_inside(left, g.kw, g.dw, g.w);
    for (int64_t i = rows.first; i < rows.last; ++i)
      for (int64_t k = columns.first; k < columns.last; ++k)
        keep_larger(y, image + ((top + i * g.dh) * g.w + left + k * g.dw) * channels, channels);
  }
}

inline void pool_bytes(const Geometry& g, const PoolStep& step, Runner& runner) {
  const uint8_t* x = static_cast<const uint8_t*>(step.x);
  uint8_t* const y = static_cast<uint8_t*>(step.y);
  const int64_t channels = g.channels_first ? 1 : g.c, images = g.channels_first ? g.n * g.c : g.n;
  for_ranges(runner, images * g.ho, g.wo * channels * g.kh * g.kw,
             [&](int64_t first, int64_t last) {
               for (int64_t row = first; row < last; ++row)
                 pool_bytes_row(g, channels, x + row / g.ho * g.h * g.w * channels, row % g.ho,
                                y + row * g.wo * channels);
             });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
