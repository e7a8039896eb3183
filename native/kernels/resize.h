// Images enlarged by whole factors. Arrays are of S, arithmetic is of T, which is float32 for a
// half type.
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
template <class T, class From, class To>
void blend(const From* a, const From* b, T weight, int64_t count, To* to) {
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

template <class From, class To>
void convert_pixel(const From* from, To* to, int64_t channels) {
  if constexpr (kSame<From, To>)
    copy_run(from, to, channels);
  else
    convert_run(from, channels, to);
}

template <class T, class From, class To>
void blend_row(const ResizeStep& step, int64_t channels, const From* row, To* y) {
  const int64_t next = step.factor_w * channels;
  for (int64_t i = 0; i < step.factor_w; ++i) {
    const Phase<T> phase(i, step.factor_w);
    To* const to = y + i * channels;
    // Outputs before the first input or behind the last one are that.
    const int64_t first = phase.is_input() ? step.w : phase.shift < 0 ? 1 : 0;
    const int64_t last = phase.is_input() || phase.shift < 0 ? step.w : step.w - 1;
    for (int64_t pixel = 0; pixel < first; ++pixel)
      convert_pixel(row + pixel * channels, to + pixel * next, channels);
    const From* const from = row + phase.shift * channels;
    if (channels == 1)
      for (int64_t pixel = first; pixel < last; ++pixel)
        to[pixel * next] = rounded_to<To>(real(from[pixel]) * (1 - phase.weight) +
                                          real(from[pixel + 1]) * phase.weight);
    else
      for (int64_t pixel = first; pixel < last; ++pixel)
        blend(from + pixel * channels, from + (pixel + 1) * channels, phase.weight, channels,
              to + pixel * next);
    for (int64_t pixel = last; pixel < step.w; ++pixel)
      convert_pixel(row + pixel * channels, to + pixel * next, channels);
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

template <class S>
void resize_bilinear(const ResizeStep& step, Runner& runner) {
  using T = Real<S>;
  const S* x = static_cast<const S*>(step.x);
  S* const y = static_cast<S*>(step.y);
  const ResizeRows r(step);
  for_ranges_with<T>(runner, r.all, r.out, r.in, [&](int64_t begin, int64_t end, T* scratch) {
    for (int64_t row = begin; row < end; ++row) {
      const S* const image = x + row / r.rows * step.h * r.in;
      const int64_t at = row % r.rows;
      const Phase<T> phase(at % step.factor_h, step.factor_h);
      const int64_t first = at / step.factor_h + phase.shift;
      const bool is_input = phase.is_input() || first < 0 || first + 1 == step.h;
      const S* source = image + max_of(first, 0) * r.in;
      S* const to = y + row * r.out;
      if (is_input) {
        blend_row<T>(step, r.channels, source, to);
        continue;
      }
      blend(source, source + r.in, phase.weight, r.in, scratch);
      blend_row<T>(step, r.channels, scratch, to);
    }
  });
}

template <class S>
void resize(const ResizeStep& step, Runner& runner) {
  step.bilinear ? resize_bilinear<S>(step, runner) : resize_nearest<S>(step, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
