// Softmax along an axis, and layer normalization of rows. Arrays are of S, arithmetic is of T,
// which is float32 for a half type. Such an output does not keep what is computed twice: it would
// be rounded.
#pragma once
#include "array_tasks.h"
#include "fold.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// ---- softmax

template <class S>
void softmax_row(bool logarithm, const S* x, S* y, int64_t count) {
  using T = Real<S>;
  const auto from = [](const S* p) {
    return [p](int64_t at, auto lanes) { return lanes.get(p + at); };
  };
  const Vec<T> most = broadcast(static_cast<T>(fold_row<T>(count, Largest<T>{}, from(x))));
  const auto power = [&](int64_t at, auto lanes) { return exp_of(lanes.get(x + at) - most); };
  if (logarithm) {
    const double total = fold_row<T>(count, Sum<T>{}, power);
    const Vec<T> logarithm_of_total = broadcast(static_cast<T>(__builtin_log(total)));
    for_columns<T>(count, [&](int64_t at, auto lanes) {
      lanes.put(y + at, lanes.get(x + at) - most - logarithm_of_total);
    });
    return;
  }
  if constexpr (kIsHalf<S>) {
    const Vec<T> factor = broadcast(static_cast<T>(1 / fold_row<T>(count, Sum<T>{}, power)));
    for_columns<T>(count,
                   [&](int64_t at, auto lanes) { lanes.put(y + at, power(at, lanes) * factor); });
    return;
  }
  for_columns<T>(count, [&](int64_t at, auto lanes) { lanes.put(y + at, power(at, lanes)); });
  const Vec<T> factor = broadcast(static_cast<T>(1 / fold_row<T>(count, Sum<T>{}, from(y))));
  for_columns<T>(count,
                 [&](int64_t at, auto lanes) { lanes.put(y + at, lanes.get(y + at) * factor); });
}

// A vector of columns of [count, inner]; y may be x.
template <class S, class Lanes>
void softmax_columns(const SoftmaxStep& step, const S* x, S* y, const Lanes& lanes) {
  using T = Real<S>;
  Vec<T> most[1];
  fold_columns<T>(x, step.count, step.inner, Largest<T>{}, lanes, most);
  const int64_t end = step.count * step.inner;
  Vec<T> total = zero<T>();
  for (int64_t i = 0; i < end; i += step.inner) {
    const Vec<T> e = exp_of(lanes.get(x + i) - most[0]);
    total += e;
    if (!step.logarithm && !kIsHalf<S>) lanes.put(y + i, e);
  }
  if (step.logarithm) {
    const Vec<T> logarithm = log_of(total);
    for (int64_t i = 0; i < end; i += step.inner)
      lanes.put(y + i, lanes.get(x + i) - most[0] - logarithm);
    return;
  }
  const Vec<T> factor = T(1) / total;
  for (int64_t i = 0; i < end; i += step.inner) {
    const Vec<T> e = kIsHalf<S> ? exp_of(lanes.get(x + i) - most[0]) : lanes.get(y + i);
    lanes.put(y + i, e * factor);
  }
}

template <class S>
void softmax(const SoftmaxStep& step, Runner& runner) {
  using T = Real<S>;
  const S* x = static_cast<const S*>(step.x);
  S* const y = static_cast<S*>(step.y);
  const int64_t size = step.count * step.inner;
  if (step.inner == 1) {
    for_ranges(runner, step.outer, size, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row)
        softmax_row(step.logarithm, x + row * size, y + row * size, size);
    });
    return;
  }
  const int64_t chunks = ceil_div(step.inner, kLanes<T>);
  for_ranges(runner, step.outer * chunks, step.count * min_of(kLanes<T>, step.inner),
             [&](int64_t first, int64_t last) {
               for (int64_t i = first; i < last; ++i) {
                 const int64_t column = i % chunks * kLanes<T>, at = i / chunks * size + column;
                 const int64_t width = step.inner - column;
                 if (width >= kLanes<T>)
                   softmax_columns(step, x + at, y + at, WholeVector<T>{});
                 else
                   softmax_columns(step, x + at, y + at, FirstLanes<T>{width});
               }
             });
}

// ---- layer normalization

template <class S>
void normalize_row(const LayerNormStep& step, const S* x, S* y) {
  using T = Real<S>;
  const int64_t count = step.count;
  const double size = static_cast<double>(count);
  const T *gamma = static_cast<const T*>(step.gamma), *beta = static_cast<const T*>(step.beta);
  // Of differences from one of the elements, so that a large mean costs no digits. What is
  // subtracted in the end has the digits of T, and what is left of the mean is added then.
  const Vec<T> about = broadcast(real(x[0]));
  const double offset =
      fold_row<T>(count, Sum<T>{},
                  [x, about](int64_t at, auto lanes) { return lanes.get(x + at) - about; }) /
      size;
  const double first = static_cast<double>(real(x[0]));
  const T near_mean = static_cast<T>(first + offset);
  const double rest = first - static_cast<double>(near_mean) + offset;
  const Vec<T> middle = broadcast(near_mean);
  const double square = fold_row<T>(count, Sum<T>{},
                                    [x, middle](int64_t at, auto lanes) {
                                      const Vec<T> apart = lanes.get(x + at) - middle;
                                      return apart * apart;
                                    }) /
                            size -
                        rest * rest;
  const double inverse = 1 / __builtin_sqrt((square < 0 ? 0 : square) + step.epsilon);
  const Vec<T> factor = broadcast(static_cast<T>(inverse)),
               shift = broadcast(static_cast<T>(-rest * inverse));
  for_columns<T>(count, [&](int64_t at, auto lanes) {
    Vec<T> v = (lanes.get(x + at) - middle) * factor + shift;
    if (gamma != nullptr) v = v * lanes.get(gamma + at);
    if (beta != nullptr) v = v + lanes.get(beta + at);
    lanes.put(y + at, v);
  });
}

template <class S>
void layer_norm(const LayerNormStep& step, Runner& runner) {
  const S* x = static_cast<const S*>(step.x);
  S* const y = static_cast<S*>(step.y);
  for_ranges(runner, step.rows, step.count, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      normalize_row(step, x + row * step.count, y + row * step.count);
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
