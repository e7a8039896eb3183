// Functions of two arrays that are broadcast over each other; and a scale and shift a channel.
// Arrays are of S, arithmetic is of T, which is float32 for a half type.
#pragma once
#include "array_tasks.h"
#include "functions.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// ---- functions of two numbers

struct Add {
  template <class V>
  V operator()(V a, V b) const {
    return a + b;
  }
};
struct Subtract {
  template <class V>
  V operator()(V a, V b) const {
    return a - b;
  }
};
struct Multiply {
  template <class V>
  V operator()(V a, V b) const {
    return a * b;
  }
};
struct Divide {
  template <class V>
  V operator()(V a, V b) const {
    return a / b;
  }
};
template <class T>
struct Maximum {
  Vec<T> operator()(Vec<T> a, Vec<T> b) const { return larger<T>(a, b); }
};
template <class T>
struct Minimum {
  Vec<T> operator()(Vec<T> a, Vec<T> b) const { return smaller<T>(a, b); }
};
template <class T>
struct Power {
  Vec<T> operator()(Vec<T> a, Vec<T> b) const {
    for (int lane = 0; lane < kLanes<T>; ++lane)
      a[lane] = sizeof(T) == 4 ? static_cast<T>(__builtin_powf(static_cast<float>(a[lane]),
                                                               static_cast<float>(b[lane])))
                               : static_cast<T>(__builtin_pow(static_cast<double>(a[lane]),
                                                              static_cast<double>(b[lane])));
    return a;
  }
};

// ---- rows

// An operand along a row: neighbours, one number, or numbers that are apart.
template <class S>
struct Neighbours {
  const S* p;
  template <class Lanes>
  Vec<Real<S>> get(int64_t at, const Lanes& lanes) const {
    return lanes.get(p + at);
  }
};
template <class T>
struct OneNumber {
  Vec<T> value;
  template <class Lanes>
  Vec<T> get(int64_t, const Lanes&) const {
    return value;
  }
};
template <class S>
struct Apart {
  using T = Real<S>;
  const S* p;
  int64_t step;
  Vec<T> get(int64_t at, const WholeVector<T>&) const { return first(at, kLanes<T>); }
  Vec<T> get(int64_t at, const FirstLanes<T>& lanes) const { return first(at, lanes.count); }

 private:
  Vec<T> first(int64_t at, int64_t count) const {
    T values[kLanes<T>] = {};
    for (int64_t lane = 0; lane < count; ++lane) values[lane] = real(p[(at + lane) * step]);
    return load(values);
  }
};

template <class S, class F, class A, class B>
void combine_row(const A& a, const B& b, S* y, int64_t count, const F& f) {
  for_columns<Real<S>>(count, [&](int64_t at, auto lanes) {
    lanes.put(y + at, f(a.get(at, lanes), b.get(at, lanes)));
  });
}

template <class S, class F>
void binary_rows(const BinaryStep& step, const Axes<3>& axes, Runner& runner, const F& f) {
  using T = Real<S>;
  const S *a = static_cast<const S*>(step.a), *b = static_cast<const S*>(step.b);
  S* const y = static_cast<S*>(step.y);
  const int64_t a_step = axes.step(0), b_step = axes.step(1);
  for_runs(runner, axes, [&](const int64_t (&offsets)[3], int64_t first, int64_t count) {
    const S *a_row = a + offsets[0] + first * a_step, *b_row = b + offsets[1] + first * b_step;
    S* const y_row = y + offsets[2] + first;
    if (a_step == 1 && b_step == 1)
      combine_row<S>(Neighbours<S>{a_row}, Neighbours<S>{b_row}, y_row, count, f);
    else if (a_step == 1 && b_step == 0)
      combine_row<S>(Neighbours<S>{a_row}, OneNumber<T>{broadcast(real(*b_row))}, y_row, count, f);
    else if (a_step == 0 && b_step == 1)
      combine_row<S>(OneNumber<T>{broadcast(real(*a_row))}, Neighbours<S>{b_row}, y_row, count, f);
    else
      combine_row<S>(Apart<S>{a_row, a_step}, Apart<S>{b_row, b_step}, y_row, count, f);
  });
}

// ---- short rows

// How many rows of `count` elements are computed as one, where an operand is the same for each of
// `rows`; 1 where rows are long enough by themselves.
template <class T>
int64_t rows_together(int64_t rows, int64_t count) {
  if (count >= 4 * kLanes<T>) return 1;
  return min_of(rows, tuning::kRepeatedElements / count);
}

template <class T>
void repeat(const T* p, int64_t count, int64_t times, T* to) {
  for (int64_t i = 0; i < times; ++i)
    for (int64_t k = 0; k < count; ++k) to[i * count + k] = p[k];
}

// Whether rows of the last axis are neighbours in y and in operand `whole`, while `repeated` has
// the same row for all along the axis before.
inline bool repeats(const Axes<3>& axes, int whole, int repeated) {
  if (axes.rank < 2 || axes.step(whole) != 1 || axes.step(repeated) != 1) return false;
  const int before = axes.rank - 2;
  return axes.strides[whole][before] == axes.inner() && axes.strides[repeated][before] == 0;
}

// For that case, of short rows.
template <class S, class F>
void binary_repeated(const BinaryStep& step, const Axes<3>& axes, int repeated, Runner& runner,
                     const F& f) {
  const S *a = static_cast<const S*>(step.a), *b = static_cast<const S*>(step.b);
  S* const y = static_cast<S*>(step.y);
  const int64_t inner = axes.inner(), rows = axes.shape[axes.rank - 2];
  const int64_t together = rows_together<Real<S>>(rows, inner);
  const int64_t pieces = ceil_div(rows, together), blocks = axes.rows() / rows;
  for_ranges(runner, blocks * pieces, together * inner, [&](int64_t first, int64_t last) {
    S values[tuning::kRepeatedElements];
    int64_t block = first / pieces, piece = first % pieces;
    Rows<3> at(axes, block, 2);
    for (int64_t left = last - first; left > 0; at.next(), piece = 0) {
      repeat((repeated == 0 ? a : b) + at.offsets[repeated], inner, together, values);
      const int64_t end = min_of(pieces, piece + left);
      left -= end - piece;
      const int64_t begin = piece * together * inner,
                    count = min_of(rows, end * together) * inner - begin;
      const S* const whole = (repeated == 0 ? b : a) + at.offsets[1 - repeated] + begin;
      S* const to = y + at.offsets[2] + begin;
      for (int64_t i = 0; i < count; i += together * inner) {
        const int64_t run = min_of(together * inner, count - i);
        const Neighbours<S> w{whole + i}, r{values};
        if (repeated == 0)
          combine_row<S>(r, w, to + i, run, f);
        else
          combine_row<S>(w, r, to + i, run, f);
      }
    }
  });
}

// ---- any shape

template <class S, class F>
void binary_by(const BinaryStep& step, Runner& runner, const F& f) {
  int64_t y_strides[kMostAxes], stride = 1;
  for (int axis = step.rank - 1; axis >= 0; --axis) {
    y_strides[axis] = stride;
    stride *= step.shape[axis];
  }
  Axes<3> axes;
  for (int axis = 0; axis < step.rank; ++axis)
    axes.add(step.shape[axis], {step.a_strides[axis], step.b_strides[axis], y_strides[axis]});
  axes.finish();
  const bool is_short = axes.inner() < 4 * kLanes<Real<S>>;
  if (is_short && repeats(axes, 0, 1))
    binary_repeated<S>(step, axes, 1, runner, f);
  else if (is_short && repeats(axes, 1, 0))
    binary_repeated<S>(step, axes, 0, runner, f);
  else
    binary_rows<S>(step, axes, runner, f);
}

// Whether b is one number for all, and that is 2.
template <class S>
bool is_two(const BinaryStep& step) {
  for (int axis = 0; axis < step.rank; ++axis)
    if (step.shape[axis] != 1 && step.b_strides[axis] != 0) return false;
  return real(*static_cast<const S*>(step.b)) == 2;
}

template <class S>
void power(const BinaryStep& step, Runner& runner) {
  if (!is_two<S>(step)) return binary_by<S>(step, runner, Power<Real<S>>{});
  BinaryStep square = step;
  square.b = step.a;
  for (int axis = 0; axis < step.rank; ++axis) square.b_strides[axis] = step.a_strides[axis];
  binary_by<S>(square, runner, Multiply{});
}

template <class S>
void binary(const BinaryStep& step, Runner& runner) {
  switch (step.function) {
    case Binary::add:
      return binary_by<S>(step, runner, Add{});
    case Binary::subtract:
      return binary_by<S>(step, runner, Subtract{});
    case Binary::multiply:
      return binary_by<S>(step, runner, Multiply{});
    case Binary::divide:
      return binary_by<S>(step, runner, Divide{});
    case Binary::maximum:
      return binary_by<S>(step, runner, Maximum<Real<S>>{});
    case Binary::minimum:
      return binary_by<S>(step, runner, Minimum<Real<S>>{});
    case Binary::power:
      return power<S>(step, runner);
  }
}

// ---- scale and shift

template <class S>
void scale_rows(const ScaleStep& step, Runner& runner) {
  using T = Real<S>;
  const S* x = static_cast<const S*>(step.x);
  const T *scale = static_cast<const T*>(step.scale), *shift = static_cast<const T*>(step.shift);
  S* const y = static_cast<S*>(step.y);
  const int64_t channels = step.channels, together = rows_together<T>(step.outer, channels);
  const int64_t width = together * channels;
  T scales[tuning::kRepeatedElements], shifts[tuning::kRepeatedElements];
  if (together > 1) {
    if (scale != nullptr) repeat(scale, channels, together, scales);
    if (shift != nullptr) repeat(shift, channels, together, shifts);
  }
  const T *a = scale != nullptr && together > 1 ? scales : scale,
          *b = shift != nullptr && together > 1 ? shifts : shift;
  for_ranges(runner, ceil_div(step.outer, together), width, [&](int64_t first, int64_t last) {
    const int64_t end = min_of(last * together, step.outer) * channels;
    for (int64_t row = first * width; row < end; row += width)
      for_columns<T>(min_of(width, end - row), [&](int64_t at, auto lanes) {
        Vec<T> v = lanes.get(x + row + at);
        if (a != nullptr) v = v * lanes.get(a + at);
        if (b != nullptr) v = v + lanes.get(b + at);
        lanes.put(y + row + at, v);
      });
  });
}

template <class S>
void scale_planes(const ScaleStep& step, Runner& runner) {
  using T = Real<S>;
  const S* x = static_cast<const S*>(step.x);
  const T *scale = static_cast<const T*>(step.scale), *shift = static_cast<const T*>(step.shift);
  S* const y = static_cast<S*>(step.y);
  const int64_t inner = step.inner;
  for_ranges(runner, step.outer * step.channels * inner, 1, [&](int64_t first, int64_t last) {
    for (int64_t at = first, count; at < last; at += count) {
      const int64_t plane = at / inner, channel = plane % step.channels;
      count = min_of(last, (plane + 1) * inner) - at;
      const Vec<T> a = broadcast(scale == nullptr ? T(1) : scale[channel]),
                   b = broadcast(shift == nullptr ? T(0) : shift[channel]);
      for_columns<T>(count, [&](int64_t i, auto lanes) {
        const Vec<T> v = lanes.get(x + at + i) * a;
        lanes.put(y + at + i, shift == nullptr ? v : v + b);
      });
    }
  });
}

template <class S>
void scale(const ScaleStep& step, Runner& runner) {
  step.inner == 1 ? scale_rows<S>(step, runner) : scale_planes<S>(step, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
