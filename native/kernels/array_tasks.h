// Cuts the work of an array operation into tasks, and its axes into rows.
#pragma once
#include "../array_operation.h"
#include "../tuning.h"
#include "parallel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// How many tasks `items` items make, each of which is the work of `elements` elements.
inline int64_t range_tasks(int64_t items, int64_t elements) {
  const int64_t wanted = parts(items * max_of(1, elements), tuning::kArrayTaskElements);
  return shareable(min_of(wanted, items), items);
}

// Calls f(first, last) for ranges that together are [0, items), in parallel where there is work for
// several threads.
template <class F>
void for_ranges(Runner& runner, int64_t items, int64_t elements, const F& f) {
  const int64_t tasks = range_tasks(items, elements);
  if (tasks <= 1) {
    f(int64_t{0}, items);
    return;
  }
  parallel<char>(runner, tasks, 0, [&](int64_t task, char*) {
    f(part_start(items, tasks, task), part_start(items, tasks, task + 1));
  });
}

// The same for tasks that need memory: f(first, last, scratch), with room for `room` elements of T.
template <class T, class F>
void for_ranges_with(Runner& runner, int64_t items, int64_t elements, int64_t room, const F& f) {
  const int64_t tasks = range_tasks(items, elements);
  parallel<T>(runner, tasks, room, [&](int64_t task, T* scratch) {
    f(part_start(items, tasks, task), part_start(items, tasks, task + 1), scratch);
  });
}

// The axes that `kArrays` strided arrays are walked along together. Those of one element are left
// out, and neighbours that are one axis to all arrays are joined, so that `inner`, the last one, is
// as long as can be.
template <int kArrays>
struct Axes {
  int rank = 0;
  int64_t shape[kMostAxes], strides[kArrays][kMostAxes];

  // Adds an axis inside all others.
  void add(int64_t size, const int64_t (&steps)[kArrays]) {
    if (size == 1) return;
    bool joins = rank > 0;
    for (int array = 0; array < kArrays && joins; ++array)
      joins = strides[array][rank - 1] == size * steps[array];
    if (joins)
      shape[rank - 1] *= size;
    else
      shape[rank++] = size;
    for (int array = 0; array < kArrays; ++array) strides[array][rank - 1] = steps[array];
  }
  // Arrays of one element have one axis, too.
  void finish() {
    if (rank > 0) return;
    shape[rank++] = 1;
    for (int array = 0; array < kArrays; ++array) strides[array][0] = 1;
  }
  int64_t inner() const { return shape[rank - 1]; }
  int64_t step(int array) const { return strides[array][rank - 1]; }
  int64_t rows() const {
    int64_t count = 1;
    for (int axis = 0; axis < rank - 1; ++axis) count *= shape[axis];
    return count;
  }
};

// The offset of a row of each array, from one row to the next.
template <int kArrays>
class Rows {
 public:
  // At row `row`, of rows along the axes before the `inner_axes` last ones.
  Rows(const Axes<kArrays>& axes, int64_t row, int inner_axes = 1)
      : axes_(axes), last_(axes.rank - inner_axes - 1) {
    for (int64_t& offset : offsets) offset = 0;
    for (int axis = last_; axis >= 0; --axis) {
      index_[axis] = row % axes.shape[axis];
      row /= axes.shape[axis];
      for (int array = 0; array < kArrays; ++array)
        offsets[array] += index_[axis] * axes.strides[array][axis];
    }
  }
  void next() {
    for (int axis = last_; axis >= 0; --axis) {
      const bool carries = ++index_[axis] == axes_.shape[axis];
      const int64_t steps = carries ? 1 - axes_.shape[axis] : 1;
      for (int array = 0; array < kArrays; ++array)
        offsets[array] += steps * axes_.strides[array][axis];
      if (!carries) return;
      index_[axis] = 0;
    }
  }
  int64_t offsets[kArrays];

 private:
  const Axes<kArrays>& axes_;
  const int last_;
  int64_t index_[kMostAxes];
};

// Calls f(offsets, first, count) for runs of the last axis that together are all elements, in
// parallel: `count` elements from element `first` of the row at `offsets`.
template <int kArrays, class F>
void for_runs(Runner& runner, const Axes<kArrays>& axes, const F& f) {
  const int64_t inner = axes.inner();
  for_ranges(runner, axes.rows() * inner, 1, [&](int64_t first, int64_t last) {
    Rows<kArrays> rows(axes, first / inner);
    int64_t at = first % inner;
    for (int64_t left = last - first; left > 0; rows.next()) {
      const int64_t count = min_of(inner - at, left);
      f(rows.offsets, at, count);
      left -= count;
      at = 0;
    }
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
