// Operations an element at a time against the C library's functions: of one array, of two that are
// broadcast, of a channel; and constants.
#include "arrays.h"
#include "sections.h"

namespace test {
namespace {

using Real = long double;
using sepconv::Binary;
using sepconv::Unary;

constexpr int kUnaries = static_cast<int>(Unary::sparse_plus) + 1;
constexpr int kBinaries = static_cast<int>(Binary::power) + 1;

// ---- functions of one array

Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }
Real hard_sigmoid(Real x) { return std::min<Real>(std::max<Real>(x + 3, 0), 6) / 6; }
// The limit where x is -infinity.
Real gate(Real x, Real factor) { return factor == 0 ? 0 : x * factor; }

Real expected_of(Unary function, Real a, Real b, Real c, Real x) {
  const Real size = std::fabs(x), infinite = std::numeric_limits<Real>::infinity();
  if (std::isnan(x)) return function == Unary::threshold ? b : x;
  switch (function) {
    case Unary::relu:
      return x >= b ? b : x >= c ? x : a == 0 ? 0 : a * (x - c);
    case Unary::sigmoid:
      return sigmoid(x);
    case Unary::hard_sigmoid:
      return hard_sigmoid(x);
    case Unary::silu:
      return gate(x, sigmoid(x));
    case Unary::hard_silu:
      return gate(x, hard_sigmoid(x));
    case Unary::tanh:
      return std::tanh(x);
    case Unary::gelu:
      return gate(x, std::erfc(-x / std::sqrt(Real(2))) / 2);
    case Unary::gelu_tanh:
      return gate(
          x, sigmoid(2 * std::sqrt(2 / std::acos(Real(-1))) * (x + Real(0.044715L) * x * x * x)));
    case Unary::elu:
      return x < 0 ? a * std::expm1(x) : x;
    case Unary::selu:
      return Real(1.05070098735548049341933498529460L) *
             (x < 0 ? Real(1.67326324235437728481704308496950L) * std::expm1(x) : x);
    case Unary::celu:
      return x < 0 ? a * std::expm1(x / a) : x;
    case Unary::softplus:
      return std::max<Real>(x, 0) + std::log1p(std::exp(-size));
    case Unary::softsign:
      return std::isinf(x) ? std::copysign(Real(1), x) : x / (1 + size);
    case Unary::mish:
      return gate(x, std::tanh(std::log1p(std::exp(x))));
    case Unary::exp:
      return std::exp(x);
    case Unary::log:
      return x == 0 ? -infinite : std::log(x);
    case Unary::sqrt:
      return std::sqrt(x);
    case Unary::rsqrt:
      return 1 / std::sqrt(x);
    case Unary::square:
      return x * x;
    case Unary::abs:
      return size;
    case Unary::negative:
      return -x;
    case Unary::reciprocal:
      return 1 / x;
    case Unary::erf:
      return std::erf(x);
    case Unary::sin:
      return std::sin(x);
    case Unary::cos:
      return std::cos(x);
    case Unary::floor:
      return std::floor(x);
    case Unary::ceil:
      return std::ceil(x);
    case Unary::round:
      return std::nearbyint(x);
    case Unary::sign:
      return x > 0 ? 1 : x < 0 ? -1 : 0;
    case Unary::clip:
      return std::min(std::max(x, a), b);
    case Unary::linear:
      return a * x + b;
    case Unary::soft_shrink:
      return x > a ? x - a : x < -a ? x + a : 0;
    case Unary::hard_shrink:
      return size <= a ? 0 : x;
    case Unary::threshold:
      return x > a ? x : b;
    case Unary::squareplus:
      if (std::isinf(x)) return x > 0 ? x : 0;
      return x < 0 ? a / (2 * (std::sqrt(x * x + a) - x)) : (x + std::sqrt(x * x + a)) / 2;
    case Unary::sparse_plus:
      return x <= -1 ? 0 : x >= 1 ? x : (x + 1) * (x + 1) / 4;
  }
  return infinite;
}

// What these lose where the result is far smaller than 1: an exponent's rounding counts as often as
// the exponent says.
bool is_loose(Unary function) {
  return function == Unary::gelu || function == Unary::gelu_tanh || function == Unary::linear;
}

// Numbers of all sizes, and those where functions change.
template <class T>
std::vector<T> numbers(Random& random, int64_t count) {
  std::vector<T> values = random_values<T>(count, random.seed(), Special::none);
  const T infinite = std::numeric_limits<T>::infinity();
  const T least = std::numeric_limits<T>::min(), most = std::numeric_limits<T>::max();
  for (T& v : values) switch (random.from(0, 7)) {
      case 0:
        v = random.of<T>({0, T(-0.0), infinite, -infinite, std::numeric_limits<T>::quiet_NaN(),
                          least, least / 8, -least / 8, most, -most, T(1e18), T(-1e18)});
        break;
      case 1:
        v = static_cast<T>(random.from(-200, 200)) / 2;
        break;
      case 2:
        v = static_cast<T>(std::ldexp(v, static_cast<int>(random.from(-60, 60))));
        break;
      case 3:
        v *= 100;
        break;
      case 4:
        v = static_cast<T>(1 + std::ldexp(v, static_cast<int>(random.from(-20, 0))));
        break;
      default:
        v *= random.of<T>({1, 4, 20});
    }
  return values;
}

template <class T>
void check_one_unary(Arrays& arrays, Random& random, Unary function) {
  const int64_t count = random.one_in(8) ? random.from(1, kMostElements) : random.from(1, 2000);
  const std::vector<T> x = numbers<T>(random, count);
  double a = random.of({0.0, 0.25, 1.0, 1.5}), b = random.of({2.0, 6.0}), c = 0;
  if (function == Unary::relu) {
    b = random.of({6.0, std::numeric_limits<double>::infinity()});
    c = random.of({0.0, 1.0, -0.5});
  } else if (function == Unary::celu || function == Unary::squareplus) {
    a = random.of({0.5, 1.0, 4.0});
  } else if (function == Unary::clip) {
    a = random.of({-1.0, 0.0, 2.0});
  }
  const std::vector<T> y = arrays.run<T>(
      "unary", {x}, count, random.one_in(2) ? 0 : -1, [&](const auto& in, T* to, auto& runner) {
        sepconv::unary(kDType<T>, {function, a, b, c, in[0], to, count}, runner);
      });
  const double unit = kUnit<T>, least = static_cast<double>(std::numeric_limits<T>::min());
  for (size_t i = 0; i < x.size(); ++i) {
    const auto expected = static_cast<double>(expected_of(function, a, b, c, x[i]));
    double room = 4 * unit * std::fabs(expected) + 200 * least;
    if (is_loose(function)) room += 1.7 * unit;
    if (function == Unary::linear) room += unit * (std::fabs(a * static_cast<double>(x[i])) + b);
    if (!CHECK(is_near(y[i], expected, room))) {
      std::fprintf(stderr, "  unary %d (%g, %g, %g) of %.9g: %.9g, not %.9g; dtype %d\n",
                   static_cast<int>(function), a, b, c, static_cast<double>(x[i]),
                   static_cast<double>(y[i]), expected, static_cast<int>(kDType<T>));
      return;
    }
  }
}

// ---- functions of two arrays

template <class T>
T combined(Binary function, T a, T b) {
  switch (function) {
    case Binary::add:
      return a + b;
    case Binary::subtract:
      return a - b;
    case Binary::multiply:
      return a * b;
    case Binary::divide:
      return a / b;
    case Binary::maximum:
      return std::isnan(a) || a > b ? a : b;
    case Binary::minimum:
      return std::isnan(a) || a < b ? a : b;
    case Binary::power:
      return std::pow(a, b);
  }
  return 0;
}

// An operand: broadcast along some axes, and in memory with its axes in another order now and then.
// The number of its elements.
int64_t random_strides(Random& random, const sepconv::BinaryStep& step, int kind,
                       int64_t (&strides)[sepconv::kMostAxes]) {
  int order[sepconv::kMostAxes];
  for (int i = 0; i < step.rank; ++i) order[i] = i;
  if (kind == 3)
    for (int i = step.rank - 1; i > 0; --i) std::swap(order[i], order[random.from(0, i)]);
  // Broadcast along none, along the first ones, along the last ones, or along any axis.
  const int64_t cut = random.from(0, step.rank);
  int64_t count = 1;
  for (int i = step.rank - 1; i >= 0; --i) {
    const int axis = order[i];
    const bool repeated = kind == 1   ? axis < cut
                          : kind == 2 ? axis >= cut
                          : kind == 0 ? false
                                      : random.one_in(3);
    strides[axis] = repeated ? 0 : count;
    if (!repeated) count *= step.shape[axis];
  }
  return count;
}

template <class T>
void check_one_binary(Arrays& arrays, Random& random, Binary function) {
  sepconv::BinaryStep step{};
  step.function = function;
  step.rank = static_cast<int>(random.from(1, sepconv::kMostAxes));
  int64_t count = 1;
  for (int axis = 0; axis < step.rank; ++axis) {
    const int64_t most = (random.one_in(4) ? kMostElements : 4000) / count;
    step.shape[axis] = random.one_in(4) ? 1 : std::max<int64_t>(1, random.size(most));
    count *= step.shape[axis];
  }
  const int a_kind = static_cast<int>(random.from(0, 4)),
            b_kind = static_cast<int>(random.from(0, 4));
  const int64_t a_count = random_strides(random, step, a_kind, step.a_strides),
                b_count = random_strides(random, step, b_kind, step.b_strides);
  const std::vector<T> a = some_values<T>(random, a_count);
  std::vector<T> b = some_values<T>(random, b_count);
  if (random.one_in(3)) b[0] = 2;  // powers of it are computed in another way
  const int in_place = a_kind == 0 && random.one_in(2)   ? 0
                       : b_kind == 0 && random.one_in(2) ? 1
                                                         : -1;
  const std::vector<T> y =
      arrays.run<T>("binary", {a, b}, count, in_place, [&](const auto& in, T* to, auto& runner) {
        sepconv::BinaryStep call = step;
        call.a = in[0], call.b = in[1], call.y = to;
        sepconv::binary(kDType<T>, call, runner);
      });
  int64_t wrong = 0;
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, at_a = 0, at_b = 0;
    for (int axis = step.rank - 1; axis >= 0; --axis) {
      at_a += rest % step.shape[axis] * step.a_strides[axis];
      at_b += rest % step.shape[axis] * step.b_strides[axis];
      rest /= step.shape[axis];
    }
    const T expected =
        combined(function, a[static_cast<size_t>(at_a)], b[static_cast<size_t>(at_b)]);
    const double room =
        function == Binary::power ? 2 * kUnit<T> * std::fabs(static_cast<double>(expected)) : 0;
    wrong += !is_near(y[static_cast<size_t>(i)], static_cast<double>(expected), room);
  }
  if (!CHECK(wrong == 0)) {
    std::fprintf(stderr, "  %ld of %ld of binary %d, shape", static_cast<long>(wrong),
                 static_cast<long>(count), static_cast<int>(function));
    for (int axis = 0; axis < step.rank; ++axis)
      std::fprintf(stderr, " %ld (%ld, %ld)", static_cast<long>(step.shape[axis]),
                   static_cast<long>(step.a_strides[axis]),
                   static_cast<long>(step.b_strides[axis]));
    std::fprintf(stderr, "\n");
  }
}

// ---- scale, fill

template <class T>
void check_one_scale(Arrays& arrays, Random& random) {
  sepconv::ScaleStep step{};
  step.channels = random.size(2000);
  step.inner = random.one_in(2) ? 1 : random.size(kMostElements / step.channels);
  step.outer = random.size(kMostElements / (step.channels * step.inner));
  const int64_t count = step.outer * step.channels * step.inner;
  const std::vector<T> x = some_values<T>(random, count),
                       scale = some_values<T>(random, random.one_in(4) ? 0 : step.channels),
                       shift = some_values<T>(random, random.one_in(4) ? 0 : step.channels);
  const std::vector<T> y =
      arrays.run<T>("scale", {x, scale, shift}, count, random.one_in(2) ? 0 : -1,
                    [&](const auto& in, T* to, auto& runner) {
                      sepconv::ScaleStep call = step;
                      call.x = in[0], call.scale = in[1], call.shift = in[2], call.y = to;
                      sepconv::scale(kDType<T>, call, runner);
                    });
  int64_t wrong = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto channel = static_cast<size_t>(static_cast<int64_t>(i) / step.inner % step.channels);
    const double product = static_cast<double>(x[i]) *
                           (scale.empty() ? 1.0 : static_cast<double>(scale[channel])),
                 sum = shift.empty() ? 0.0 : static_cast<double>(shift[channel]);
    wrong += !is_near(y[i], product + sum,
                      2 * kUnit<T> * (std::fabs(product) + std::fabs(sum)) +
                          static_cast<double>(std::numeric_limits<T>::min()));
  }
  if (!CHECK(wrong == 0))
    std::fprintf(stderr, "  %ld of scale [%ld, %ld, %ld]\n", static_cast<long>(wrong),
                 static_cast<long>(step.outer), static_cast<long>(step.channels),
                 static_cast<long>(step.inner));
}

template <class T>
void check_one_fill(Arrays& arrays, Random& random) {
  const int64_t count = random.size(kMostElements);
  const double value = random.of({0.0, 1.5, std::numeric_limits<double>::infinity()});
  const std::vector<T> y =
      arrays.run<T>("fill", {}, count, -1, [&](const auto&, T* to, auto& runner) {
        sepconv::fill(kDType<T>, {value, to, count}, runner);
      });
  CHECK(y == std::vector<T>(static_cast<size_t>(count), static_cast<T>(value)));
}

}  // namespace

void check_elementwise(int rounds) {
  Arrays arrays;
  Random random(11);
  for (int i = 0; i < rounds; ++i) {
    for (int function = 0; function < kUnaries; ++function)
      with_real(i, [&](auto real) {
        check_one_unary<decltype(real)>(arrays, random, static_cast<Unary>(function));
      });
    for (int function = 0; function < 3 * kBinaries; ++function)
      with_real(i, [&](auto real) {
        check_one_binary<decltype(real)>(arrays, random, static_cast<Binary>(function % kBinaries));
      });
    for (int k = 0; k < 8; ++k)
      with_real(i, [&](auto real) { check_one_scale<decltype(real)>(arrays, random); });
    with_real(i, [&](auto real) { check_one_fill<decltype(real)>(arrays, random); });
  }
}

}  // namespace test
