// Images enlarged by whole factors.
#pragma once
#include "array_tasks.h"
#include "move.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Where outputs lie among inputs: output `input * factor + phase` lies between the inputs `input +
// shift` and the next one, of which it has `weight`. Pixels' centers are at halves.
template <class T>
struct Phase {
  Phase(int64_t phase, int64_t factor) {
    const int64_t place = 2 * phase + 1 - factor;  // times 2 * factor
    shift = place < 0 ? -1 : 0;
    const int64_t rest = place - shift * 2 * factor;
    weight = static_cast<T>(static_cast<double>(rest) / static_cast<double>(2 * factor));
  }
  // Whether it is an input, which a neighbour that is not finite must not touch.
  bool is_input() const { return weight == 0; }
  int64_t shift;
  T weight;
};

// to = a * (1 - weight) + b * weight
template <class T>
void blend(const T* a, const T* b, T weight, int64_t count, T* to) {
  const Vec<T> w = broadcast(weight), rest = broadcast(1 - weight);
  for_columns<T>(count, [&](int64_t at, auto lanes) {
    lanes.put(to + at, lanes.get(a + at) * rest + lanes.get(b + at) * w);
  });
}

// A row of `w` pixels to one of w * factor_w.
template <class T>
void repeat_row(const ResizeStep& step, int64_t channels, const T* row, T* y) {
  for (int64_t pixel = 0; pixel < step.w; ++pixel)
    for (int64_t i = 0; i < step.factor_w; ++i, y += channels)
      if (channels == 1)
        *y = row[pixel];
      else
        copy_run(row + pixel * channels, y, channels);
}

template <class T>
void blend_row(const ResizeStep& step, int64_t channels, const T* row, T* y) {
  const int64_t next = step.factor_w * channels;
  for (int64_t i = 0; i < step.factor_w; ++i) {
    const Phase<T> phase(i, step.factor_w);
    T* const to = y + i * channels;
    // Outputs before the first input or behind the last one are that.
    const int64_t first = phase.is_input() ? step.w : phase.shift < 0 ? 1 : 0;
    const int64_t last = phase.is_input() || phase.shift < 0 ? step.w : step.w - 1;
    for (int64_t pixel = 0; pixel < first; ++pixel)
      copy_run(row + pixel * channels, to + pixel * next, channels);
    const T* const from = row + phase.shift * channels;
    if (channels == 1)
      for (int64_t pixel = first; pixel < last; ++pixel)
        to[pixel * next] = from[pixel] * (1 - phase.weight) + from[pixel + 1] * phase.weight;
    else
      for (int64_t pixel = first; pixel < last; ++pixel)
        blend(from + pixel * channels, from + (pixel + 1) * channels, phase.weight, channels,
              to + pixel * next);
    for (int64_t pixel = last; pixel < step.w; ++pixel)
      copy_run(row + pixel * channels, to + pixel * next, channels);
  }
}

// The rows of a step's images; channels_first is images of one channel.
struct ResizeRows {
  explicit ResizeRows(const ResizeStep& step)
      : channels(step.channels_first ? 1 : step.channels),
        in(step.w * channels),
        out(in * step.factor_w),
        rows(step.h * step.factor_h),
        all((step.channels_first ? step.images * step.channels : step.images) * rows) {}
  int64_t channels, in, out;  // elements of a row
  int64_t rows, all;          // of outputs, of an image and of all
};

template <class T>
void resize_nearest(const ResizeStep& step, Runner& runner) {
  const T* x = static_cast<const T*>(step.x);
  T* const y = static_cast<T*>(step.y);
  const ResizeRows r(step);
  for_ranges(runner, r.all, r.out, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t input = row / r.rows * step.h + row % r.rows / step.factor_h;
      repeat_row(step, r.channels, x + input * r.in, y + row * r.out);
    }
  });
}

template <class T>
void resize_bilinear(const ResizeStep& step, Runner& runner) {
  const T* x = static_cast<const T*>(step.x);
  T* const y = static_cast<T*>(step.y);
  const ResizeRows r(step);
  for_ranges_with<T>(runner, r.all, r.out, r.in, [&](int64_t begin, int64_t end, T* scratch) {
    for (int64_t row = begin; row < end; ++row) {
      const T* const image = x + row / r.rows * step.h * r.in;
      const int64_t at = row % r.rows;
      const Phase<T> phase(at % step.factor_h, step.factor_h);
      const int64_t first = at / step.factor_h + phase.shift;
      const bool is_input = phase.is_input() || first < 0 || first + 1 == step.h;
      const T* source = image + max_of(first, 0) * r.in;
      if (!is_input) {
        blend(source, source + r.in, phase.weight, r.in, scratch);
        source = scratch;
      }
      blend_row(step, r.channels, source, y + row * r.out);
    }
  });
}

template <class T>
void resize(const ResizeStep& step, Runner& runner) {
  step.bilinear ? resize_bilinear<T>(step, runner) : resize_nearest<T>(step, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
