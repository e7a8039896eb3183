// Images enlarged by whole factors.
#pragma once
#include "array_tasks.h"
#include "lanes.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// The two inputs that an output lies between, and the second one's weight. Pixels' centers are at
// halves, and beyond the outermost ones the image goes on as it is there. An output that is an
// input has it twice, so that a neighbour that is not finite does not touch it.
template <class T>
struct Between {
  Between(int64_t output, int64_t factor, int64_t size) {
    const int64_t twice = 2 * output + 1 - factor;  // the place times 2 * factor
    const int64_t below = floor_div(twice, 2 * factor), rest = twice - below * 2 * factor;
    weight = static_cast<T>(static_cast<double>(rest) / static_cast<double>(2 * factor));
    first = max_of(below, 0);
    second = rest == 0 ? first : min_of(below + 1, size - 1);
  }
  bool is_input() const { return first == second; }
  int64_t first, second;
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

template <class T>
void copy_pixel(const T* from, int64_t channels, T* to) {
  for_columns<T>(channels,
                 [&](int64_t at, auto lanes) { lanes.put(to + at, lanes.get(from + at)); });
}

// A row of `w` pixels to one of w * factor.
template <class T>
void enlarge_row(const ResizeStep& step, int64_t channels, const T* row, T* y) {
  const int64_t factor = step.factor_w, columns = step.w * factor;
  if (!step.bilinear) {
    if (channels == 1) {
      for (int64_t pixel = 0; pixel < step.w; ++pixel)
        for (int64_t i = 0; i < factor; ++i) y[pixel * factor + i] = row[pixel];
      return;
    }
    for (int64_t column = 0; column < columns; ++column)
      copy_pixel(row + column / factor * channels, channels, y + column * channels);
    return;
  }
  for (int64_t column = 0; column < columns; ++column) {
    const Between<T> at(column, factor, step.w);
    const T *a = row + at.first * channels, *b = row + at.second * channels;
    T* const to = y + column * channels;
    if (at.is_input() && channels == 1)
      *to = *a;
    else if (at.is_input())
      copy_pixel(a, channels, to);
    else if (channels == 1)
      *to = *a * (1 - at.weight) + *b * at.weight;
    else
      blend(a, b, at.weight, channels, to);
  }
}

template <class T>
void resize(const ResizeStep& step, Runner& runner) {
  const T* x = static_cast<const T*>(step.x);
  T* const y = static_cast<T*>(step.y);
  // channels_first is images of one channel.
  const int64_t channels = step.channels_first ? 1 : step.channels;
  const int64_t images = step.channels_first ? step.images * step.channels : step.images;
  const int64_t in = step.w * channels, out = in * step.factor_w, rows = step.h * step.factor_h;
  const int64_t room = step.bilinear ? in : 0;
  for_ranges_with<T>(runner, images * rows, out, room, [&](int64_t begin, int64_t end, T* scratch) {
    for (int64_t row = begin; row < end; ++row) {
      const T* const image = x + row / rows * step.h * in;
      const int64_t at = row % rows;
      if (!step.bilinear) {
        enlarge_row(step, channels, image + at / step.factor_h * in, y + row * out);
        continue;
      }
      const Between<T> between(at, step.factor_h, step.h);
      const T* source = image + between.first * in;
      if (!between.is_input()) {
        blend(source, image + between.second * in, between.weight, in, scratch);
        source = scratch;
      }
      enlarge_row(step, channels, source, y + row * out);
    }
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
