// Sums over many tasks: each group of work has a partial sum, and partial sums are added in a fixed
// order; and the gradient of the bias.
#pragma once
#include "../tuning.h"
#include "half.h"
#include "parallel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Adds up `count` partial results of `size` elements into `total`, in order.
template <class T, class Stored>
void add_partials(const T* partials, int64_t count, int64_t size, Stored* total, Runner& runner) {
  constexpr int64_t kVec = kLanes<T>;
  const int64_t tasks = min_of(tuning::kTasks, parts(size * count, tuning::kPlainTaskElements));
  parallel<T>(runner, tasks, 0, [&](int64_t task, T*) {
    const int64_t last = part_start(size, tasks, task + 1);
    int64_t i = part_start(size, tasks, task);
    for (; i + kVec <= last; i += kVec) {
      Vec<T> value = load(partials + i);
      for (int64_t k = 1; k < count; ++k) value += load(partials + k * size + i);
      store_real(total + i, value);
    }
    if (i == last) return;
    Vec<T> value = load_first(partials + i, last - i);
    for (int64_t k = 1; k < count; ++k) value += load_first(partials + k * size + i, last - i);
    store_real_first(total + i, value, last - i);
  });
}

// The number of groups that `units` of work are put into. A group has partial sums of its own, of
// `bytes_each` bytes.
inline int64_t group_count(int64_t units, int64_t bytes_each) {
  return max_of(
      1, min_of(min_of(units, tuning::kMostGroups), tuning::kGroupBytes / max_of(1, bytes_each)));
}

// The partial sums of all groups. A group stores the sums of its first unit and adds those of the
// others, so that no memory need be zeroed. The sums of a single group are the result, unless that
// is of a half type: it is then rounded once, at the end.
template <class T, class Stored = T>
class GroupSums {
 public:
  GroupSums(int64_t groups, int64_t size, Stored* total)
      : groups_(groups), size_(size), total_(total), partials_(in_total() ? 0 : groups * size) {}
  T* of(int64_t group) const {
    if constexpr (kSame<T, Stored>) {
      if (in_total()) return total_;
    }
    return partials_.get() + group * size_;
  }
  void add_up(Runner& runner) const {
    if (!in_total()) add_partials(partials_.get(), groups_, size_, total_, runner);
  }

 private:
  bool in_total() const { return kSame<T, Stored> && groups_ == 1; }

  const int64_t groups_, size_;
  Stored* const total_;
  const Workspace<T> partials_;
};

// The sum of consecutive values: of 16 vectors at a time in Real<T>, then of those sums in float64,
// since a sum of many values of either sign loses digits.
template <class T>
double sum_run(const T* p, int64_t count) {
  constexpr int64_t kVec = kLanes<Real<T>>, kStep = 16 * kVec;
  double total = 0;
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    Vec<Real<T>> lanes = load_real(p + i);
    for (int64_t v = kVec; v < kStep; v += kVec) lanes += load_real(p + i + v);
    total += static_cast<double>(sum<Real<T>>(lanes));
  }
  for (; i < count; ++i) total += static_cast<double>(real(p[i]));
  return total;
}

// Adds the rows [first, last) of `channels` numbers each to `sums`: 16 rows at a time in Real<T>,
// then their sums in float64, as sum_run() does.
template <class T>
void add_rows(const T* p, int64_t first, int64_t last, int64_t channels, double* sums) {
  constexpr int64_t kVec = kLanes<Real<T>>, kRows = 16;
  for (int64_t row = first; row < last; row += kRows) {
    const int64_t count = min_of(kRows, last - row);
    const T* const rows = p + row * channels;
    const auto add = [&](int64_t c, int64_t lanes, auto&& load_row) __attribute__((always_inline)) {
      Vec<Real<T>> total = load_row(rows + c);
      for (int64_t r = 1; r < count; ++r) total += load_row(rows + r * channels + c);
      Real<T> lane[kVec];
      store(lane, total);
      for (int64_t i = 0; i < lanes; ++i) sums[c + i] += static_cast<double>(lane[i]);
    };
    int64_t c = 0;
    for (; c + kVec <= channels; c += kVec)
      add(c, kVec, [](const T* from) __attribute__((always_inline)) { return load_real(from); });
    if (const int64_t left = channels - c; left != 0)
      add(c, left, [left](const T* from) __attribute__((always_inline)) {
        return load_real_first(from, left);
      });
  }
}

// The sum of dy over all but its channels, as T or in Real<T>.
template <class T, class Stored>
void bias_gradient(int64_t images, int64_t pixels, int64_t channels, bool channels_first,
                   const T* dy, Stored* dbias, Runner& runner) {
  if (channels_first) {
    const int64_t tasks =
        parts(channels, ceil_div(tuning::kPlainTaskElements, max_of(1, images * pixels)));
    parallel<T>(runner, tasks, 0, [&](int64_t task, T*) {
      for (int64_t c = part_start(channels, tasks, task); c < part_start(channels, tasks, task + 1);
           ++c) {
        double total = 0;
        for (int64_t n = 0; n < images; ++n)
          total += sum_run(dy + (n * channels + c) * pixels, pixels);
        dbias[c] = converted_to<Stored>(static_cast<Real<T>>(total));
      }
    });
    return;
  }
  const int64_t rows = images * pixels;
  const int64_t groups =
      min_of(tuning::kMostGroups, parts(rows, tuning::kPlainTaskElements / max_of(1, channels)));
  Workspace<double> partials(groups * channels);
  parallel<T>(runner, groups, 0, [&](int64_t group, T*) {
    double* sums = partials.get() + group * channels;
    fill_zero(sums, channels);
    add_rows(dy, part_start(rows, groups, group), part_start(rows, groups, group + 1), channels,
             sums);
  });
  for (int64_t c = 0; c < channels; ++c) {
    double total = 0;
    for (int64_t group = 0; group < groups; ++group) total += partials.get()[group * channels + c];
    dbias[c] = converted_to<Stored>(static_cast<Real<T>>(total));
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
