// A channelwise correlation's sizes, and which of its taps fall inside the image.
#pragma once
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Pads may be negative: the window then starts inside the image. `channels` are those of a pixel in
// memory, of which an image in scratch may have more than the convolution.
struct Correlation {
  int64_t in_h, in_w, channels;
  int64_t kh, kw, sh, sw, dh, dw, pt, pl;
  int64_t out_w;
  int64_t weights_tap;  // elements from a tap's weights to the next
};

// The range [first, last) of kernel taps that fall inside `size` when the window starts at `start`.
struct Range {
  int64_t first, last;
};
inline Range taps_inside(int64_t start, int64_t taps, int64_t dilation, int64_t size) {
  // Taps are nearly always all inside, so the divisions below are worth avoiding.
  if (start >= 0 && start + (taps - 1) * dilation < size) return {0, taps};
  const int64_t first = start >= 0 ? 0 : ceil_div(-start, dilation);
  const int64_t last = size - start <= 0 ? 0 : ceil_div(size - start, dilation);
  Range range{min_of(first, taps), min_of(last, taps)};
  if (range.last < range.first) range.last = range.first;
  return range;
}

// The range [first, last) of outputs, within [0, count), all of whose taps fall inside `size`.
inline Range outputs_inside(int64_t count, int64_t taps, int64_t stride, int64_t dilation,
                            int64_t pad, int64_t size) {
  int64_t first = ceil_div(pad, stride);
  int64_t last = floor_div(size - 1 + pad - (taps - 1) * dilation, stride) + 1;
  first = min_of(max_of(first, 0), count);
  last = min_of(max_of(last, first), count);
  return {first, last};
}

// A box of outputs: rows [p0, p1), columns [q0, q1), channels [c0, c1), of which there are at
// least kLanes.
struct Box {
  int64_t p0, p1, q0, q1, c0, c1;
};

// Part `index` of `count` parts of the channels, as a range. Parts begin at whole vectors; the last
// one also has the channels that do not fill a vector.
template <class T>
Range channel_part(int64_t channels, int64_t count, int64_t index) {
  const int64_t vectors = channels / kLanes<T>;
  const int64_t first = part_start(vectors, count, index) * kLanes<T>;
  const int64_t last = part_start(vectors, count, index + 1) * kLanes<T>;
  return {first, index + 1 == count ? channels : last};
}

// The input pixels that the taps of a box of outputs see, padding included.
struct Window {
  int64_t row, column, rows, columns;
};
inline Window window_of(const Correlation& g, int64_t p0, int64_t p1, int64_t q0, int64_t q1) {
  return {p0 * g.sh - g.pt, q0 * g.sw - g.pl, (p1 - 1 - p0) * g.sh + (g.kh - 1) * g.dh + 1,
          (q1 - 1 - q0) * g.sw + (g.kw - 1) * g.dw + 1};
}

// Its part inside the image, which may have no rows or columns.
inline Window inside_image(const Correlation& g, const Window& w) {
  const int64_t row = min_of(max_of(0, w.row), g.in_h);
  const int64_t column = min_of(max_of(0, w.column), g.in_w);
  return {row, column, max_of(0, min_of(w.row + w.rows, g.in_h) - row),
          max_of(0, min_of(w.column + w.columns, g.in_w) - column)};
}

// Where a kernel finds the pixels of one vector of channels: pixel (h, w) is
// data[(h - row) * row_step + (w - column) * pixel_step].
template <class T>
struct Pixels {
  const T* data;
  int64_t row, column, row_step, pixel_step;
  const T* at(int64_t h, int64_t w) const {
    return data + (h - row) * row_step + (w - column) * pixel_step;
  }
};

template <class T>
Pixels<T> image_pixels(const Correlation& g, const T* image, int64_t c) {
  return {image + c, 0, 0, g.in_w * g.channels, g.channels};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
