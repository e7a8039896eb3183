// Sums, means, largest and smallest numbers along an axis. Arrays are of S, arithmetic is of T,
// which is float32 for a half type.
//
// A large reduction is cut into groups that have a partial result each. How many follows from sizes
// alone, and so does the order of sums.
#pragma once
#include "array_tasks.h"
#include "fold.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Rows of `count` numbers.
template <class S, class R>
void reduce_rows(const ReduceStep& step, Runner& runner, const R& r) {
  using T = Real<S>;
  const S* x = static_cast<const S*>(step.x);
  S* const y = static_cast<S*>(step.y);
  const int64_t count = step.count;
  const double divisor = step.function == Reduction::mean ? static_cast<double>(count) : 1;
  const auto fold = [&](int64_t row, int64_t first, int64_t last) {
    const S* const p = x + row * count + first;
    return fold_row<T>(last - first, r, [p](int64_t at, auto lanes) { return lanes.get(p + at); });
  };
  const int64_t groups =
      step.outer >= tuning::kTasks
          ? 1
          : min_of(tuning::kMostGroups, parts(count, tuning::kReducePartElements));
  if (groups == 1) {
    for_ranges(runner, step.outer, count, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row)
        y[row] = rounded_to<S>(static_cast<T>(fold(row, 0, count) / divisor));
    });
    return;
  }
  const Workspace<double> partials(step.outer * groups);
  for_ranges(runner, step.outer * groups, count / groups, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      partials.get()[i] = fold(i / groups, part_start(count, groups, i % groups),
                               part_start(count, groups, i % groups + 1));
  });
  for (int64_t row = 0; row < step.outer; ++row) {
    double total = static_cast<double>(R::start);
    for (int64_t group = 0; group < groups; ++group)
      total = r.one(total, partials.get()[row * groups + group]);
    y[row] = rounded_to<S>(static_cast<T>(total / divisor));
  }
}

// The columns of [count, inner], `outer` times, in `groups` groups of the rows: y is [outer,
// groups, inner]. Every result is divided.
template <class T, class From, class To, class R>
void reduce_columns(const From* x, To* y, const ReduceStep& s, int64_t groups, T divisor,
                    Runner& runner, const R& r) {
  constexpr int64_t kChunk = 4 * kLanes<T>;
  const int64_t chunks = ceil_div(s.inner, kChunk), rows = s.count / groups;
  const int64_t wide = rows * min_of(kChunk, s.inner);
  for_ranges(runner, s.outer * groups * chunks, wide, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i % chunks * kChunk, result = i / chunks, group = result % groups;
      const int64_t first = part_start(s.count, groups, group),
                    last = part_start(s.count, groups, group + 1);
      const From* const from = x + (result / groups * s.count + first) * s.inner + column;
      To* const to = y + result * s.inner + column;
      for_wide_columns<T>(min_of(kChunk, s.inner - column),
                          [&]<int kVectors>(int64_t at, auto lanes) {
                            Vec<T> totals[kVectors];
                            fold_columns<T>(from + at, last - first, s.inner, r, lanes, totals);
                            for (int v = 0; v < kVectors; ++v)
                              lanes.put(to + at + v * kLanes<T>, totals[v] / divisor);
                          });
    }
  });
}

template <class S, class R>
void reduce_by(const ReduceStep& step, Runner& runner, const R& r) {
  using T = Real<S>;
  if (step.inner == 1) {
    reduce_rows<S>(step, runner, r);
    return;
  }
  const S* x = static_cast<const S*>(step.x);
  S* const y = static_cast<S*>(step.y);
  const T divisor = step.function == Reduction::mean ? static_cast<T>(step.count) : T(1);
  const int64_t groups =
      step.outer >= tuning::kTasks
          ? 1
          : min_of(min_of(tuning::kMostGroups, parts(step.count, 4 * tuning::kSumRows)),
                   parts(step.count * step.inner, tuning::kReducePartElements));
  if (groups == 1) {
    reduce_columns<T>(x, y, step, 1, divisor, runner, r);
    return;
  }
  const Workspace<T> partials(step.outer * groups * step.inner);
  reduce_columns<T>(x, partials.get(), step, groups, T(1), runner, r);
  ReduceStep rest = step;
  rest.count = groups;
  reduce_columns<T>(partials.get(), y, rest, 1, divisor, runner, r);
}

template <class S>
void reduce(const ReduceStep& step, Runner& runner) {
  using T = Real<S>;
  switch (step.function) {
    case Reduction::mean:
    case Reduction::sum:
      return reduce_by<S>(step, runner, Sum<T>{});
    case Reduction::max:
      return reduce_by<S>(step, runner, Largest<T>{});
    case Reduction::min:
      return reduce_by<S>(step, runner, Smallest<T>{});
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
