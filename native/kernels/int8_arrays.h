// The int8 operations between convolutions: from and to float32, an element at a time, means and
// windows.
#pragma once
#include "int8_depthwise.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// ---- an element at a time

inline void quantize_bytes(const QuantizeStep& step, Runner& runner) {
  const Rounding rounding{step.zero_point, 0, 255};
  for_ranges(runner, step.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float t = step.x[i] * step.multiplier;
      step.y[i] = rounded_byte(t == t ? t : 0.0f, rounding);
    }
  });
}

inline void dequantize_bytes(const DequantizeStep& step, Runner& runner) {
  for_ranges(runner, step.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      step.y[i] = static_cast<float>(step.x[i] - step.zero_point) * step.scale;
  });
}

inline void lookup_bytes(const LookupStep& step, Runner& runner) {
  for_ranges(runner, step.count, 1, [&](int64_t first, int64_t last) {
    look_up(step.table, step.x + first, last - first, step.y + first);
  });
}

// A_STEP, B_STEP: from an element to the next along the run, 0 or 1; or -1: `a_step`, `b_step`.
template <bool ADDS, int A_STEP, int B_STEP>
void binary_run(const QuantizedBinaryStep& step, const uint8_t* a, int64_t a_step, const uint8_t* b,
                int64_t b_step, int64_t count, uint8_t* y) {
  const Rounding rounding{step.zero_point, step.lower, step.upper};
  const int32_t za = step.a_zero_point, zb = step.b_zero_point;
  const float a_scale = step.a_scale, b_scale = step.b_scale;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t from_a = a[A_STEP < 0 ? i * a_step : i * A_STEP] - za;
    const int32_t from_b = b[B_STEP < 0 ? i * b_step : i * B_STEP] - zb;
    const float t =
        ADDS ? static_cast<float>(from_a) * a_scale + static_cast<float>(from_b) * b_scale
             : static_cast<float>(from_a * from_b) * a_scale;
    y[i] = rounded_byte(t, rounding);
  }
}

template <bool ADDS>
void binary_bytes_by(const QuantizedBinaryStep& step, Runner& runner) {
  Axes<3> axes;
  int64_t dense[kMostAxes], size = 1;
  for (int axis = step.rank; axis-- > 0; size *= step.shape[axis]) dense[axis] = size;
  for (int axis = 0; axis < step.rank; ++axis)
    axes.add(step.shape[axis], {dense[axis], step.a_strides[axis], step.b_strides[axis]});
  axes.finish();
  const int64_t a_step = axes.step(1), b_step = axes.step(2);
  const auto run = a_step == 1 && b_step == 1   ? &binary_run<ADDS, 1, 1>
                   : a_step == 1 && b_step == 0 ? &binary_run<ADDS, 1, 0>
                   : a_step == 0 && b_step == 1 ? &binary_run<ADDS, 0, 1>
                                                : &binary_run<ADDS, -1, -1>;
  for_runs(runner, axes, [&](const int64_t (&offsets)[3], int64_t first, int64_t count) {
    run(step, step.a + offsets[1] + first * a_step, a_step, step.b + offsets[2] + first * b_step,
        b_step, count, step.y + offsets[0] + first);
  });
}

inline void binary_bytes(const QuantizedBinaryStep& step, Runner& runner) {
  step.function == QuantizedBinary::add ? binary_bytes_by<true>(step, runner)
                                        : binary_bytes_by<false>(step, runner);
}

// ---- means

// Columns whose sums are made together, and rows whose bytes an int32 holds the sum of.
inline constexpr int64_t kMeanColumns = 256, kMeanRows = int64_t{1} << 23;

inline void mean_bytes(const QuantizedMeanStep& step, Runner& runner) {
  const Rounding rounding{step.zero_point, 0, 255};
  const int64_t blocks = ceil_div(step.inner, kMeanColumns);
  for_ranges(runner, step.outer * blocks, step.count * min_of(step.inner, kMeanColumns),
             [&](int64_t first, int64_t last) {
               for (int64_t item = first; item < last; ++item) {
                 const int64_t outer = item / blocks, c0 = item % blocks * kMeanColumns;
                 const int64_t columns = min_of(kMeanColumns, step.inner - c0);
                 const uint8_t* x = step.x + outer * step.count * step.inner + c0;
                 int64_t totals[kMeanColumns];
                 for (int64_t c = 0; c < columns; ++c)
                   totals[c] = -step.count * step.input_zero_point;
                 for (int64_t row = 0; row < step.count;) {
                   const int64_t end = min_of(step.count, row + kMeanRows);
                   int32_t sums[kMeanColumns] = {};
                   if (step.inner == 1)
                     for (; row < end; ++row) sums[0] += x[row];
                   else
                     for (; row < end; ++row)
                       for (int64_t c = 0; c < columns; ++c) sums[c] += x[row * step.inner + c];
                   for (int64_t c = 0; c < columns; ++c) totals[c] += sums[c];
                 }
                 uint8_t* const y = step.y + outer * step.inner + c0;
                 for (int64_t c = 0; c < columns; ++c)
                   y[c] = rounded_byte(static_cast<float>(totals[c]) * step.scale, rounding);
               }
             });
}

// ---- windows

// Channels whose sums are made together.
inline constexpr int64_t kPoolChannels = 256;

inline void average_row_bytes(const Geometry& g, const QuantizedAveragePoolStep& step,
                              const uint8_t* image, int64_t row, uint8_t* y) {
  const Rounding rounding{step.zero_point, 0, 255};
  const int64_t top = row * g.sh - g.pt;
  const Range down = taps_inside(top, g.kh, g.dh, g.h);
  for (int64_t q = 0; q < g.wo; ++q, y += g.c) {
    const int64_t left = q * g.sw - g.pl;
    const Range along = taps_inside(left, g.kw, g.dw, g.w);
    const int64_t pixels = (down.last - down.first) * (along.last - along.first);
    const float scale = pixels == 0 ? 0 : step.scale / static_cast<float>(pixels);
    for (int64_t c0 = 0; c0 < g.c; c0 += kPoolChannels) {
      const int64_t channels = min_of(kPoolChannels, g.c - c0);
      int32_t sums[kPoolChannels] = {};
      for (int64_t i = down.first; i < down.last; ++i)
        for (int64_t j = along.first; j < along.last; ++j) {
          const uint8_t* x = image + ((top + i * g.dh) * g.w + left + j * g.dw) * g.c + c0;
          for (int64_t c = 0; c < channels; ++c) sums[c] += x[c] - step.input_zero_point;
        }
      for (int64_t c = 0; c < channels; ++c)
        y[c0 + c] = rounded_byte(static_cast<float>(sums[c]) * scale, rounding);
    }
  }
}

// Where channels are second, planes are images of one channel.
inline void average_pool_bytes(const Geometry& shape, const QuantizedAveragePoolStep& step,
                               Runner& runner) {
  Geometry g = shape;
  if (g.channels_first) {
    g.n *= g.c;
    g.c = 1;
  }
  for_ranges(runner, g.n * g.ho, g.wo * g.c * g.kh * g.kw, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      average_row_bytes(g, step, step.x + row / g.ho * g.h * g.w * g.c, row % g.ho,
                        step.y + row * g.wo * g.c);
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
