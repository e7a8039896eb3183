// Copies of strided arrays: transposing, slicing, padding and concatenating.
#pragma once
#include "array_tasks.h"
#include "lanes.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Array 0 is x, 1 is y. The axes in the order in which y lies in memory.
inline Axes<2> copy_axes(const CopyStep& step) {
  int order[kMostAxes];
  for (int i = 0; i < step.rank; ++i) {
    int at = i;
    for (; at > 0 && step.y_strides[order[at - 1]] < step.y_strides[i]; --at)
      order[at] = order[at - 1];
    order[at] = i;
  }
  Axes<2> axes;
  for (int i = 0; i < step.rank; ++i)
    axes.add(step.shape[order[i]], {step.x_strides[order[i]], step.y_strides[order[i]]});
  axes.finish();
  return axes;
}

template <class T>
void copy_run(const T* x, T* y, int64_t count) {
  if constexpr (sizeof(T) >= sizeof(float))
    for_columns<T>(count, [&](int64_t at, auto lanes) { lanes.put(y + at, lanes.get(x + at)); });
  else
    __builtin_memcpy(y, x, static_cast<size_t>(count) * sizeof(T));
}

// The axis along which x is dense, if it is not the last one but y's is; -1 where there is none.
inline int transposed_axis(const Axes<2>& axes) {
  if (axes.step(1) != 1 || axes.step(0) == 1) return -1;
  for (int axis = axes.rank - 2; axis >= 0; --axis)
    if (axes.strides[0][axis] == 1) return axis;
  return -1;
}

// Puts axis `axis` next to the last one.
inline void move_before_last(Axes<2>& axes, int axis) {
  for (; axis < axes.rank - 2; ++axis) {
    const auto swap = [axis](int64_t* values) {
      const int64_t value = values[axis];
      values[axis] = values[axis + 1];
      values[axis + 1] = value;
    };
    swap(axes.shape);
    swap(axes.strides[0]);
    swap(axes.strides[1]);
  }
}

// The last two axes swapped, in blocks whose lines of x and of y are in the first cache together.
template <class T>
void copy_transposed(const T* x, T* y, const Axes<2>& axes, Runner& runner) {
  constexpr int64_t kSide = tuning::kTransposeSide;
  const int64_t rows = axes.shape[axes.rank - 2], columns = axes.inner();
  const int64_t y_step = axes.strides[1][axes.rank - 2], x_step = axes.step(0);
  const int64_t strips = ceil_div(rows, kSide), matrices = axes.rows() / rows;
  for_ranges(runner, matrices * strips, kSide * columns, [&](int64_t first, int64_t last) {
    int64_t strip = first % strips;
    Rows<2> at(axes, first / strips, 2);
    for (int64_t left = last - first; left > 0; --left) {
      const int64_t row = strip * kSide, height = min_of(kSide, rows - row);
      for (int64_t column = 0; column < columns; column += kSide) {
        const int64_t width = min_of(kSide, columns - column);
        const T* const from = x + at.offsets[0] + row + column * x_step;
        T* const to = y + at.offsets[1] + row * y_step + column;
        for (int64_t r = 0; r < height; ++r)
          for (int64_t c = 0; c < width; ++c) to[r * y_step + c] = from[r + c * x_step];
      }
      if (++strip == strips) {
        strip = 0;
        at.next();
      }
    }
  });
}

template <class T>
void copy(const CopyStep& step, Runner& runner) {
  const T* x = static_cast<const T*>(step.x);
  T* const y = static_cast<T*>(step.y);
  Axes<2> axes = copy_axes(step);
  const int transposed = transposed_axis(axes);
  if (transposed >= 0) {
    move_before_last(axes, transposed);
    copy_transposed(x, y, axes, runner);
    return;
  }
  const int64_t x_step = axes.step(0), y_step = axes.step(1);
  for_runs(runner, axes, [&](const int64_t (&offsets)[2], int64_t first, int64_t count) {
    const T* const from = x + offsets[0] + first * x_step;
    T* const to = y + offsets[1] + first * y_step;
    if (x_step == 1 && y_step == 1)
      copy_run(from, to, count);
    else
      for (int64_t i = 0; i < count; ++i) to[i * y_step] = from[i * x_step];
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
