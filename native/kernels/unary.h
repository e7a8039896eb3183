// Functions of one array, an element at a time; and constants. Arrays are of S, arithmetic is of T,
// which is float32 for a half type.
#pragma once
#include "array_tasks.h"
#include "functions.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// y = f(x), by vectors; y may be x.
template <class S, class F>
void map(const UnaryStep& step, Runner& runner, const F& f) {
  const S* x = static_cast<const S*>(step.x);
  S* const y = static_cast<S*>(step.y);
  for_ranges(runner, step.count, 1, [&](int64_t first, int64_t last) {
    for_columns<Real<S>>(last - first, [&](int64_t at, auto lanes) {
      lanes.put(y + first + at, f(lanes.get(x + first + at)));
    });
  });
}

// Functions that are arithmetic and comparisons.
template <class S>
void simple_unary(const UnaryStep& step, Runner& runner) {
  using T = Real<S>;
  using V = Vec<T>;
  const V a = broadcast(static_cast<T>(step.a)), b = broadcast(static_cast<T>(step.b)),
          c = broadcast(static_cast<T>(step.c));
  const V nothing = zero<T>(), one = broadcast<T>(1);
  switch (step.function) {
    case Unary::relu:
      // A slope of 0 gives 0 of -infinity, too.
      map<S>(step, runner, [=](V v) {
        const V low = a == nothing ? nothing : a * (v - c);
        return v >= b ? b : v < c ? low : v;
      });
      return;
    case Unary::hard_sigmoid:
      map<S>(step, runner,
             [](V v) { return at_least(at_most<T>(v + T(3), 6), T(0)) * T(1.0 / 6); });
      return;
    case Unary::hard_silu:
      map<S>(step, runner,
             [](V v) { return gated<T>(v, at_least(at_most<T>(v + T(3), 6), T(0)) * T(1.0 / 6)); });
      return;
    case Unary::softsign:
      // So large that the quotient is 1.
      map<S>(step, runner, [](V v) {
        const V size = at_most<T>(absolute<T>(v), T(1e30));
        return with_sign<T>(size / (size + T(1)), v);
      });
      return;
    case Unary::sqrt:
      map<S>(step, runner, [](V v) { return square_root(v); });
      return;
    case Unary::rsqrt:
      map<S>(step, runner, [](V v) { return T(1) / square_root(v); });
      return;
    case Unary::square:
      map<S>(step, runner, [](V v) { return v * v; });
      return;
    case Unary::abs:
      map<S>(step, runner, [](V v) { return absolute<T>(v); });
      return;
    case Unary::negative:
      map<S>(step, runner, [](V v) { return -v; });
      return;
    case Unary::reciprocal:
      map<S>(step, runner, [](V v) { return T(1) / v; });
      return;
    case Unary::floor:
      map<S>(step, runner, [](V v) { return floor_of<T>(v); });
      return;
    case Unary::ceil:
      map<S>(step, runner, [](V v) { return ceiling_of<T>(v); });
      return;
    case Unary::round:
      map<S>(step, runner, [](V v) { return rounded<T>(v); });
      return;
    case Unary::sign:
      map<S>(step, runner, [=](V v) { return v > nothing ? one : v < nothing ? -one : v; });
      return;
    case Unary::clip:
      map<S>(step, runner, [=](V v) {
        const V low = v < a ? a : v;
        return low > b ? b : low;
      });
      return;
    case Unary::linear:
      map<S>(step, runner, [=](V v) { return a * v + b; });
      return;
    case Unary::soft_shrink:
      map<S>(step, runner, [=](V v) {
        return v > a ? v - a : v < -a ? v + a : v == v ? nothing : v;
      });
      return;
    case Unary::hard_shrink:
      map<S>(step, runner, [=](V v) { return absolute<T>(v) <= a ? nothing : v; });
      return;
    case Unary::threshold:
      map<S>(step, runner, [=](V v) { return v > a ? v : b; });
      return;
    case Unary::squareplus:
      map<S>(step, runner, [=](V v) {
        // Where the square would be infinite, a is nothing beside it. Of a negative number, by the
        // quotient that loses no digits.
        const V size = absolute<T>(v);
        const V root = size > broadcast<T>(T(1e18)) ? size : square_root(v * v + a);
        return v < nothing ? a / ((root - v) * T(2)) : v * T(0.5) + root * T(0.5);
      });
      return;
    case Unary::sparse_plus:
      map<S>(step, runner, [=](V v) {
        const V up = v + T(1);
        return v <= -one ? nothing : v >= one ? v : up * up * T(0.25);
      });
      return;
    default:
      return;
  }
}

template <class S>
void unary(const UnaryStep& step, Runner& runner) {
  using T = Real<S>;
  using V = Vec<T>;
  const V a = broadcast(static_cast<T>(step.a));
  const V nothing = zero<T>();
  switch (step.function) {
    case Unary::sigmoid:
      map<S>(step, runner, [](V v) { return sigmoid_of<T>(v); });
      return;
    case Unary::silu:
      map<S>(step, runner, [](V v) { return gated<T>(v, sigmoid_of<T>(v)); });
      return;
    case Unary::tanh:
      map<S>(step, runner, [](V v) { return tanh_of(v); });
      return;
    case Unary::gelu:
      map<S>(step, runner,
             [](V v) { return gated<T>(v, one_plus_erf(v * T(0.70710678118654752440)) * T(0.5)); });
      return;
    case Unary::gelu_tanh:
      // (1 + tanh(u)) / 2 is the sigmoid of 2 u.
      map<S>(step, runner, [](V v) {
        const V u = (v + v * v * v * T(0.044715)) * T(0.79788456080286535588);
        return gated<T>(v, sigmoid_of<T>(u * T(2)));
      });
      return;
    case Unary::elu:
      map<S>(step, runner,
             [=](V v) { return v < nothing ? a * exp_minus_1(at_most<T>(v, 0)) : v; });
      return;
    case Unary::selu:
      map<S>(step, runner, [=](V v) {
        const V e = exp_minus_1(at_most<T>(v, 0)) * T(1.67326324235437728481);
        return (v < nothing ? e : v) * T(1.05070098735548049341);
      });
      return;
    case Unary::celu:
      map<S>(step, runner,
             [=](V v) { return v < nothing ? a * exp_minus_1(at_most<T>(v / a, 0)) : v; });
      return;
    case Unary::softplus:
      map<S>(step, runner, [](V v) { return softplus_of<T>(v); });
      return;
    case Unary::mish:
      // tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2), which is 1 for a large e.
      map<S>(step, runner, [](V v) {
        const V e = exp_of(at_most<T>(v, 40));
        const V w = e * (e + T(2));
        return gated<T>(v, w / (w + T(2)));
      });
      return;
    case Unary::exp:
      map<S>(step, runner, [](V v) { return exp_of(v); });
      return;
    case Unary::log:
      map<S>(step, runner, [](V v) { return log_of(v); });
      return;
    case Unary::erf:
      map<S>(step, runner, [](V v) { return erf_of(v); });
      return;
    case Unary::sin:
      map<S>(step, runner, [](V v) {
        return each_lane<T>(v, [](T x) {
          return sizeof(T) == 4 ? static_cast<T>(__builtin_sinf(static_cast<float>(x)))
                                : static_cast<T>(__builtin_sin(static_cast<double>(x)));
        });
      });
      return;
    case Unary::cos:
      map<S>(step, runner, [](V v) {
        return each_lane<T>(v, [](T x) {
          return sizeof(T) == 4 ? static_cast<T>(__builtin_cosf(static_cast<float>(x)))
                                : static_cast<T>(__builtin_cos(static_cast<double>(x)));
        });
      });
      return;
    default:
      simple_unary<S>(step, runner);
  }
}

template <class S>
void fill(const FillStep& step, Runner& runner) {
  using T = Real<S>;
  S* const y = static_cast<S*>(step.y);
  const Vec<T> value = broadcast(static_cast<T>(step.value));
  for_ranges(runner, step.count, 1, [&](int64_t first, int64_t last) {
    for_columns<T>(last - first, [&](int64_t at, auto lanes) { lanes.put(y + first + at, value); });
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
