// Windows, reductions, softmax, layer normalization, enlarged images and copies against plain loops
// in double.
#include "arrays.h"
#include "sections.h"

namespace test {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

template <class T>
constexpr double kLeast = static_cast<double>(std::numeric_limits<T>::min());

// NaN where either is.
double larger_of(double a, double b) { return std::isnan(a) || a > b ? a : b; }
double smaller_of(double a, double b) { return std::isnan(a) || a < b ? a : b; }

template <class T>
double at(const std::vector<T>& values, int64_t index) {
  return static_cast<double>(values[static_cast<size_t>(index)]);
}

// Counts results that are not as expected, and says of what they are.
template <class T>
class Verdict {
 public:
  explicit Verdict(const std::vector<T>& y) : y_(y) {}
  void hold(int64_t index, double expected, double room) {
    const T received = y_[static_cast<size_t>(index)];
    if (is_near(received, expected, room)) return;
    if (wrong_++ != 0) return;
    index_ = index;
    received_ = static_cast<double>(received);
    expected_ = expected;
  }
  void end(const char* what, std::initializer_list<int64_t> sizes) const {
    if (CHECK(wrong_ == 0)) return;
    std::fprintf(stderr, "  %ld of %s, dtype %d, sizes", static_cast<long>(wrong_), what,
                 static_cast<int>(kDType<T>));
    for (const int64_t size : sizes) std::fprintf(stderr, " %ld", static_cast<long>(size));
    std::fprintf(stderr, ": element %ld is %.9g, not %.9g\n", static_cast<long>(index_), received_,
                 expected_);
  }

 private:
  const std::vector<T>& y_;
  int64_t wrong_ = 0, index_ = 0;
  double received_ = 0, expected_ = 0;
};

// ---- windows

template <class T>
void check_one_pool(Arrays& arrays, Random& random) {
  const bool first = random.one_in(2), average = random.one_in(2), same = random.one_in(2);
  const int64_t kh = random.from(1, 4), kw = random.from(1, 4);
  const int64_t sh = random.from(1, 3), sw = random.from(1, 3);
  const int64_t dh = sh == 1 && sw == 1 ? random.from(1, 2) : 1, dw = dh;
  const auto pad = [&] { return same ? 0 : random.from(0, 3); };
  const sepconv::Spec spec{sh, sw, dh, dw, same, pad(), pad(), pad(), pad(), first};
  const int64_t h = (kh - 1) * dh + random.size(40), w = (kw - 1) * dw + random.size(300);
  const int64_t c = random.size(std::min<int64_t>(700, kMostElements / (h * w)));
  const int64_t n = random.size(std::min<int64_t>(9, kMostElements / (h * w * c)));
  int64_t x_shape[4] = {n, h, w, c};
  if (first) x_shape[1] = c, x_shape[2] = h, x_shape[3] = w;
  const int64_t kernel_shape[4] = {kh, kw, c, 1};
  const sepconv::Geometry g = sepconv::resolve(spec, x_shape, kernel_shape);
  const int64_t count = n * g.ho * g.wo * c;
  if (count > kMostElements) return;
  const std::vector<T> x = some_values<T>(random, n * h * w * c);
  const std::vector<T> y =
      arrays.run<T>("pool", {x}, count, -1, [&](const auto& in, T* to, auto& runner) {
        sepconv::pool(kDType<T>, g, {average, in[0], to}, runner);
      });
  Verdict<T> verdict(y);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t p = 0; p < g.ho; ++p)
      for (int64_t q = 0; q < g.wo; ++q)
        for (int64_t k = 0; k < c; ++k) {
          double sum = 0, size = 0, most = -kInfinite;
          int64_t pixels = 0;
          for (int64_t u = 0; u < kh; ++u)
            for (int64_t v = 0; v < kw; ++v) {
              const int64_t row = p * sh - g.pt + u * dh, column = q * sw - g.pl + v * dw;
              if (row < 0 || row >= h || column < 0 || column >= w) continue;
              const double value = at(x, first ? ((i * c + k) * h + row) * w + column
                                               : ((i * h + row) * w + column) * c + k);
              ++pixels;
              sum += value;
              size += std::fabs(value);
              most = larger_of(most, value);
            }
          const double divisor = static_cast<double>(pixels);
          verdict.hold(
              first ? ((i * c + k) * g.ho + p) * g.wo + q : ((i * g.ho + p) * g.wo + q) * c + k,
              average ? sum / divisor : most,
              average ? 4 * kUnit<T> * size / divisor + kLeast<T> : 0);
        }
  verdict.end("pool", {n, h, w, c, kh, kw, sh, sw, dh, g.pt, g.pl, first, average});
}

// ---- along an axis

struct Along {
  int64_t outer, count, inner;
  int64_t elements() const { return outer * count * inner; }
  int64_t index(int64_t o, int64_t k, int64_t i) const { return (o * count + k) * inner + i; }
};

Along random_along(Random& random) {
  Along s{};
  s.inner = random.one_in(2) ? 1 : random.size(2000);
  s.count = random.size(kMostElements / s.inner);
  s.outer = random.size(kMostElements / (s.inner * s.count));
  return s;
}

template <class T>
void check_one_reduction(Arrays& arrays, Random& random) {
  const Along s = random_along(random);
  const auto function = static_cast<sepconv::Reduction>(random.from(0, 3));
  const std::vector<T> x = some_values<T>(random, s.elements());
  const std::vector<T> y =
      arrays.run<T>("reduce", {x}, s.outer * s.inner, -1, [&](const auto& in, T* to, auto& runner) {
        sepconv::reduce(kDType<T>, {function, in[0], to, s.outer, s.count, s.inner}, runner);
      });
  Verdict<T> verdict(y);
  for (int64_t o = 0; o < s.outer; ++o)
    for (int64_t i = 0; i < s.inner; ++i) {
      double sum = 0, size = 0, most = -kInfinite, least = kInfinite;
      for (int64_t k = 0; k < s.count; ++k) {
        const double value = at(x, s.index(o, k, i));
        sum += value;
        size += std::fabs(value);
        most = larger_of(most, value);
        least = smaller_of(least, value);
      }
      const double divisor =
          function == sepconv::Reduction::mean ? static_cast<double>(s.count) : 1;
      if (function == sepconv::Reduction::max)
        verdict.hold(o * s.inner + i, most, 0);
      else if (function == sepconv::Reduction::min)
        verdict.hold(o * s.inner + i, least, 0);
      else
        verdict.hold(o * s.inner + i, sum / divisor, 8 * kUnit<T> * size / divisor + kLeast<T>);
    }
  verdict.end("reduce", {static_cast<int64_t>(function), s.outer, s.count, s.inner});
}

// Of nothing: as NumPy has it, but no error of the largest and smallest.
void check_empty_reductions() {
  for (const int64_t inner : {1, 5}) {
    float y[10] = {};
    const auto all = [&](sepconv::Reduction function, auto holds) {
      const float nothing = 0;
      sepconv::reduce(sepconv::DType::f32, {function, &nothing, y, 2, 0, inner}, sepconv::pool());
      for (int64_t i = 0; i < 2 * inner; ++i) CHECK(holds(y[i]));
    };
    all(sepconv::Reduction::sum, [](float v) { return v == 0; });
    all(sepconv::Reduction::mean, [](float v) { return std::isnan(v); });
    all(sepconv::Reduction::max, [](float v) { return v == -kInfinite; });
    all(sepconv::Reduction::min, [](float v) { return v == kInfinite; });
  }
}

template <class T>
void check_one_softmax(Arrays& arrays, Random& random) {
  const Along s = random_along(random);
  const bool logarithm = random.one_in(2);
  std::vector<T> x = some_values<T>(random, s.elements());
  const T scale = random.of<T>({1, 10, 100});
  for (T& v : x) v *= scale;
  const std::vector<T> y = arrays.run<T>(
      "softmax", {x}, s.elements(), random.one_in(2) ? 0 : -1,
      [&](const auto& in, T* to, auto& runner) {
        sepconv::softmax(kDType<T>, {logarithm, in[0], to, s.outer, s.count, s.inner}, runner);
      });
  Verdict<T> verdict(y);
  for (int64_t o = 0; o < s.outer; ++o)
    for (int64_t i = 0; i < s.inner; ++i) {
      double most = -kInfinite, total = 0;
      for (int64_t k = 0; k < s.count; ++k) most = larger_of(most, at(x, s.index(o, k, i)));
      for (int64_t k = 0; k < s.count; ++k) total += std::exp(at(x, s.index(o, k, i)) - most);
      for (int64_t k = 0; k < s.count; ++k) {
        const double apart = at(x, s.index(o, k, i)) - most;
        // Sums of columns are in one vector's order.
        const double many = 8 + std::sqrt(static_cast<double>(s.count));
        const double room = kUnit<T> * (many + std::min(std::fabs(apart), 1e3));
        const double e = std::exp(apart) / total;
        if (logarithm)
          verdict.hold(s.index(o, k, i), apart - std::log(total), room);
        else
          verdict.hold(s.index(o, k, i), e, room * e + 4 * kLeast<T>);
      }
    }
  verdict.end("softmax", {logarithm, s.outer, s.count, s.inner});
}

template <class T>
void check_one_layer_norm(Arrays& arrays, Random& random) {
  const int64_t count = random.size(kMostElements), rows = random.size(kMostElements / count);
  const double epsilon = random.of({1e-3, 1e-5}), offset = random.of({0.0, 300.0});
  std::vector<T> x = some_values<T>(random, rows * count);
  for (T& v : x) v = static_cast<T>(v + offset);
  const std::vector<T> gamma = random_values<T>(random.one_in(4) ? 0 : count, random.seed(),
                                                Special::none),
                       beta = random_values<T>(random.one_in(4) ? 0 : count, random.seed(),
                                               Special::none);
  const std::vector<T> y = arrays.run<T>(
      "layer_norm", {x, gamma, beta}, rows * count, random.one_in(2) ? 0 : -1,
      [&](const auto& in, T* to, auto& runner) {
        sepconv::layer_norm(kDType<T>, {in[0], in[1], in[2], to, rows, count, epsilon}, runner);
      });
  Verdict<T> verdict(y);
  for (int64_t row = 0; row < rows; ++row) {
    long double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; ++i) sum += at(x, row * count + i);
    const long double mean = sum / static_cast<long double>(count);
    for (int64_t i = 0; i < count; ++i) {
      const long double apart = at(x, row * count + i) - mean;
      squares += apart * apart;
    }
    const double inverse =
        1 / std::sqrt(static_cast<double>(squares) / static_cast<double>(count) + epsilon);
    for (int64_t i = 0; i < count; ++i) {
      const double normal = static_cast<double>(at(x, row * count + i) - mean) * inverse;
      const double g = gamma.empty() ? 1 : at(gamma, i), b = beta.empty() ? 0 : at(beta, i);
      verdict.hold(row * count + i, normal * g + b, 20 * kUnit<T> * (2 + std::fabs(normal)));
    }
  }
  verdict.end("layer_norm", {rows, count, gamma.empty(), beta.empty(), offset != 0});
}

// ---- enlarged images

// The place of an output among the inputs along an axis, and how much of the second one it has.
struct Place {
  Place(int64_t output, int64_t factor, int64_t size) {
    const long double place =
        (static_cast<long double>(output) + 0.5L) / static_cast<long double>(factor) - 0.5L;
    const long double below = std::floor(place);
    weight = static_cast<double>(place - below);
    first = std::max<int64_t>(static_cast<int64_t>(below), 0);
    second = std::min<int64_t>(static_cast<int64_t>(below) + 1, size - 1);
    if (first == second || weight < 1e-12) second = first, weight = 0;
  }
  int64_t first, second;
  double weight;
};

// Of nothing of b, a, whatever b is.
double between(double a, double b, double weight) {
  return weight == 0 ? a : a * (1 - weight) + b * weight;
}

template <class T>
void check_one_resize(Arrays& arrays, Random& random) {
  sepconv::ResizeStep step{};
  step.bilinear = random.one_in(2);
  step.channels_first = random.one_in(2);
  step.factor_h = random.from(1, 4);
  step.factor_w = random.from(1, 4);
  const int64_t most = kMostElements / (step.factor_h * step.factor_w);
  step.channels = random.size(500);
  step.h = random.size(std::min<int64_t>(30, most / step.channels));
  step.w = random.size(std::min<int64_t>(40, most / (step.channels * step.h)));
  step.images = random.size(std::min<int64_t>(4, most / (step.channels * step.h * step.w)));
  const int64_t n = step.images, h = step.h, w = step.w, c = step.channels;
  const int64_t ho = h * step.factor_h, wo = w * step.factor_w;
  const std::vector<T> x = some_values<T>(random, n * h * w * c);
  const std::vector<T> y =
      arrays.run<T>("resize", {x}, n * ho * wo * c, -1, [&](const auto& in, T* to, auto& runner) {
        sepconv::ResizeStep call = step;
        call.x = in[0], call.y = to;
        sepconv::resize(kDType<T>, call, runner);
      });
  const auto index = [&](int64_t i, int64_t row, int64_t column, int64_t k, int64_t height,
                         int64_t width) {
    return step.channels_first ? ((i * c + k) * height + row) * width + column
                               : ((i * height + row) * width + column) * c + k;
  };
  Verdict<T> verdict(y);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t p = 0; p < ho; ++p)
      for (int64_t q = 0; q < wo; ++q)
        for (int64_t k = 0; k < c; ++k) {
          const Place row(p, step.factor_h, h), column(q, step.factor_w, w);
          const auto pixel = [&](int64_t r, int64_t s) { return at(x, index(i, r, s, k, h, w)); };
          const double nearest = pixel(p / step.factor_h, q / step.factor_w);
          const double blended = between(
              between(pixel(row.first, column.first), pixel(row.second, column.first), row.weight),
              between(pixel(row.first, column.second), pixel(row.second, column.second),
                      row.weight),
              column.weight);
          verdict.hold(index(i, p, q, k, ho, wo), step.bilinear ? blended : nearest,
                       step.bilinear ? 4 * kUnit<T> : 0);
        }
  verdict.end("resize",
              {step.bilinear, step.channels_first, n, h, w, c, step.factor_h, step.factor_w});
}

// ---- copies

// A part of an array of larger axes, which may lie in another order.
struct Part {
  int64_t strides[sepconv::kMostAxes];
  int64_t offset = 0, elements = 1;
};

Part random_part(Random& random, int rank, const int64_t* shape, bool dense, bool reordered) {
  int order[sepconv::kMostAxes];
  for (int i = 0; i < rank; ++i) order[i] = i;
  if (reordered)
    for (int i = rank - 1; i > 0; --i) std::swap(order[i], order[random.from(0, i)]);
  Part part;
  for (int i = rank - 1; i >= 0; --i) {
    const int axis = order[i];
    const bool larger = !dense && part.elements * shape[axis] < kMostElements / 64;
    const int64_t step = larger && random.one_in(4) ? random.from(2, 3) : 1;
    const int64_t before = larger && random.one_in(3) ? random.from(0, 2) : 0;
    const int64_t after = larger && random.one_in(3) ? random.from(0, 2) : 0;
    part.strides[axis] = part.elements * step;
    part.offset += before * part.elements;
    part.elements *= before + (shape[axis] - 1) * step + 1 + after;
  }
  return part;
}

template <class T>
void check_one_copy(Arrays& arrays, Random& random) {
  sepconv::CopyStep step{};
  step.rank = static_cast<int>(random.from(1, sepconv::kMostAxes));
  int64_t count = 1;
  for (int axis = 0; axis < step.rank; ++axis) {
    const int64_t most = (random.one_in(4) ? kMostElements : 4000) / count;
    step.shape[axis] = random.one_in(5) ? 1 : std::max<int64_t>(1, random.size(most));
    count *= step.shape[axis];
  }
  const Part from = random_part(random, step.rank, step.shape, random.one_in(2), random.one_in(2)),
             to = random_part(random, step.rank, step.shape, random.one_in(2), random.one_in(3));
  if (from.elements > kMostElements || to.elements > kMostElements) return;
  for (int axis = 0; axis < step.rank; ++axis) {
    step.x_strides[axis] = from.strides[axis];
    step.y_strides[axis] = to.strides[axis];
  }
  const std::vector<T> x = some_values<T>(random, from.elements);
  // The second input is what is in y before.
  const std::vector<T> before(static_cast<size_t>(to.elements), T(77));
  const std::vector<T> y =
      arrays.run<T>("copy", {x}, to.elements, -1, [&](const auto& in, T* memory, auto& runner) {
        std::copy(before.begin(), before.end(), memory);
        sepconv::CopyStep call = step;
        call.x = in[0] + from.offset, call.y = memory + to.offset;
        sepconv::copy(kDType<T>, call, runner);
      });
  std::vector<T> expected = before;
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, source = from.offset, target = to.offset;
    for (int axis = step.rank - 1; axis >= 0; --axis) {
      source += rest % step.shape[axis] * from.strides[axis];
      target += rest % step.shape[axis] * to.strides[axis];
      rest /= step.shape[axis];
    }
    expected[static_cast<size_t>(target)] = x[static_cast<size_t>(source)];
  }
  if (!CHECK(same_numbers(y, expected))) {
    std::fprintf(stderr, "  copy");
    for (int axis = 0; axis < step.rank; ++axis)
      std::fprintf(stderr, " %ld (%ld, %ld)", static_cast<long>(step.shape[axis]),
                   static_cast<long>(step.x_strides[axis]),
                   static_cast<long>(step.y_strides[axis]));
    std::fprintf(stderr, "\n");
  }
}

// Two axes swapped between two others, and larger than the blocks that such copies go through.
void check_transposed(Arrays& arrays) {
  const int64_t shape[] = {3, 37, 50, 5};
  std::vector<float> x(3 * 37 * 50 * 5);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  const sepconv::CopyStep step{nullptr,
                               nullptr,
                               4,
                               {shape[0], shape[2], shape[1], shape[3]},
                               {37 * 50 * 5, 5, 50 * 5, 1},
                               {37 * 50 * 5, 37 * 5, 5, 1}};
  const auto y = arrays.run<float>("copy", {x}, static_cast<int64_t>(x.size()), -1,
                                   [&](const auto& in, float* to, auto& runner) {
                                     sepconv::CopyStep call = step;
                                     call.x = in[0], call.y = to;
                                     sepconv::copy(sepconv::DType::f32, call, runner);
                                   });
  CHECK(y[5] == 250 && y[37 * 5] == 5 && y.back() == x.back());
}

// ---- what is refused, and what has no elements

// Calls every operation, on nothing: no memory is touched, since there is none. f(call) calls it.
template <class F>
void on_nothing(sepconv::DType dtype, F&& f) {
  auto& pool = sepconv::pool();
  sepconv::BinaryStep binary{};
  binary.rank = 2, binary.shape[0] = 3;
  sepconv::CopyStep copy{};
  copy.rank = 2, copy.shape[1] = 3;
  f([&] { sepconv::unary(dtype, {}, pool); });
  f([&] { sepconv::binary(dtype, binary, pool); });
  f([&] { sepconv::scale(dtype, {}, pool); });
  f([&] { sepconv::pool(dtype, {}, {}, pool); });
  f([&] { sepconv::reduce(dtype, {}, pool); });
  f([&] { sepconv::softmax(dtype, {}, pool); });
  f([&] { sepconv::layer_norm(dtype, {}, pool); });
  f([&] { sepconv::resize(dtype, {}, pool); });
  f([&] { sepconv::copy(dtype, copy, pool); });
  f([&] { sepconv::fill(dtype, {}, pool); });
}

void check_nothing() {
  int ended = 0;
  for (const sepconv::DType dtype : {sepconv::DType::f32, sepconv::DType::f64})
    on_nothing(dtype, [&](auto call) { call(), ++ended; });
  CHECK(ended == 20);
  on_nothing(sepconv::DType::f16, [&](auto call) {
    CHECK_THROWS(call(), std::invalid_argument, "no such operation of this dtype");
  });
}

// One number, which has no axes.
void check_rank_0(Arrays& arrays) {
  const auto sum =
      arrays.run<float>("binary", {{2}, {3}}, 1, 0, [](const auto& in, float* to, auto& runner) {
        sepconv::BinaryStep step{};
        step.a = in[0], step.b = in[1], step.y = to;
        sepconv::binary(sepconv::DType::f32, step, runner);
      });
  CHECK(sum[0] == 5);
  const auto copy =
      arrays.run<float>("copy", {{2}}, 1, -1, [](const auto& in, float* to, auto& runner) {
        sepconv::CopyStep step{};
        step.x = in[0], step.y = to;
        sepconv::copy(sepconv::DType::f32, step, runner);
      });
  CHECK(copy[0] == 2);
}

}  // namespace

void check_arrays(int problems) {
  Arrays arrays;
  Random random(12);
  for (int i = 0; i < problems; ++i)
    with_real(i, [&](auto real) {
      using T = decltype(real);
      check_one_pool<T>(arrays, random);
      check_one_reduction<T>(arrays, random);
      check_one_softmax<T>(arrays, random);
      check_one_layer_norm<T>(arrays, random);
      check_one_resize<T>(arrays, random);
      check_one_copy<T>(arrays, random);
    });
  check_empty_reductions();
  check_transposed(arrays);
  check_nothing();
  check_rank_0(arrays);
}

}  // namespace test
