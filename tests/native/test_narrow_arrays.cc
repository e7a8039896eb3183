// Array operations of bfloat16 and uint8 against those of float32 on the same numbers, and casts
// against the definition of bfloat16: equal bits.
#include <type_traits>

#include "arrays.h"
#include "half.h"
#include "sections.h"

namespace test {
namespace {

constexpr int64_t kMost = 60000;  // elements
constexpr int kUnaries = static_cast<int>(sepconv::Unary::sparse_plus) + 1;
constexpr int kBinaries = static_cast<int>(sepconv::Binary::power) + 1;

// How numbers are stored in T: uint16_t for bfloat16, uint8_t for itself.
template <class T>
inline constexpr sepconv::DType kStored =
    std::is_same_v<T, uint8_t> ? sepconv::DType::u8 : sepconv::DType::bf16;

template <class T>
float widened(T stored) {
  if constexpr (std::is_same_v<T, uint8_t>) return stored;
  const uint32_t bits = static_cast<uint32_t>(stored) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

template <class T>
T narrowed(float number) {
  if constexpr (std::is_same_v<T, uint8_t>) return static_cast<uint8_t>(number);
  return BFloat16(static_cast<double>(number)).bits;
}

template <class T>
std::vector<float> widened(const std::vector<T>& stored) {
  std::vector<float> wide;
  for (const T one : stored) wide.push_back(widened(one));
  return wide;
}

template <class T>
std::vector<T> drawn(Random& random, int64_t count) {
  std::vector<T> values;
  for (const float number : some_values<float>(random, count))
    values.push_back(std::is_same_v<T, uint8_t> ? static_cast<T>(random.from(0, 255))
                                                : narrowed<T>(number));
  return values;
}

// Whether results are those of float32, rounded. Which NaN it is does not matter.
template <class T>
void hold(const char* what, const std::vector<T>& found, const std::vector<float>& expected) {
  int64_t wrong = 0, first = -1;
  for (size_t i = 0; i < expected.size(); ++i) {
    const bool nan = std::isnan(expected[i]) && std::isnan(widened(found[i]));
    if (nan || found[i] == narrowed<T>(expected[i])) continue;
    if (wrong++ == 0) first = static_cast<int64_t>(i);
  }
  if (!CHECK(found.size() == expected.size() && wrong == 0))
    std::fprintf(stderr, "  %ld of %s, dtype %d, %ld elements: element %ld\n",
                 static_cast<long>(wrong), what, static_cast<int>(kStored<T>),
                 static_cast<long>(expected.size()), static_cast<long>(first));
}

// Runs an operation, call(dtype, inputs, output, runner), in both dtypes.
template <class T, class F>
void check_alike(Arrays& arrays, const char* what, const std::vector<std::vector<T>>& inputs,
                 int64_t count, int in_place, const F& call) {
  const std::vector<T> found =
      arrays.run<T>(what, inputs, count, in_place, [&](const auto& in, T* y, auto& runner) {
        call(kStored<T>, std::vector<const void*>(in.begin(), in.end()), y, runner);
      });
  std::vector<std::vector<float>> wide;
  for (const std::vector<T>& input : inputs) wide.push_back(widened(input));
  const std::vector<float> expected =
      arrays.run<float>(what, wide, count, in_place, [&](const auto& in, float* y, auto& runner) {
        call(sepconv::DType::f32, std::vector<const void*>(in.begin(), in.end()), y, runner);
      });
  hold(what, found, expected);
}

// ---- both

template <class T>
void check_one_fill(Arrays& arrays, Random& random) {
  const int64_t count = random.size(kMost);
  const double value = std::is_same_v<T, uint8_t> ? 200.0 : random.of({0.0, 1.51, -1e39});
  check_alike<T>(arrays, "fill", {}, count, -1,
                 [&](auto dtype, const auto&, void* y, auto& runner) {
                   sepconv::fill(dtype, {value, y, count}, runner);
                 });
}

template <class T>
void check_one_copy(Arrays& arrays, Random& random) {
  sepconv::CopyStep step{};
  step.rank = static_cast<int>(random.from(1, 4));
  int64_t count = 1, order[4] = {0, 1, 2, 3};
  for (int i = 0; i < step.rank; ++i) {
    step.shape[i] = random.size(std::min<int64_t>(kMost / count, 300));
    count *= step.shape[i];
  }
  if (random.one_in(2)) std::swap(order[0], order[random.from(0, step.rank - 1)]);
  int64_t x_stride = 1, y_stride = 1;
  for (int i = step.rank - 1; i >= 0; --i) {
    step.x_strides[i] = x_stride;
    x_stride *= step.shape[i];
    step.y_strides[order[i]] = y_stride;
    y_stride *= step.shape[order[i]];
  }
  check_alike<T>(arrays, "copy", {drawn<T>(random, count)}, count, -1,
                 [&](auto dtype, const auto& in, void* y, auto& runner) {
                   sepconv::CopyStep call = step;
                   call.x = in[0], call.y = y;
                   sepconv::copy(dtype, call, runner);
                 });
}

template <class T>
void check_one_pool(Arrays& arrays, Random& random) {
  const bool average = !std::is_same_v<T, uint8_t> && random.one_in(2);
  const bool first = random.one_in(2), same = random.one_in(2);
  const int64_t kh = random.from(1, 4), kw = random.from(1, 4);
  const int64_t sh = random.from(1, 3), sw = random.from(1, 3);
  const int64_t d = sh == 1 && sw == 1 ? random.from(1, 2) : 1;
  const auto pad = [&](int64_t k) { return same ? 0 : random.from(0, k - 1); };
  const int64_t top = pad(kh), left = pad(kw);
  const sepconv::Spec spec{sh, sw, d, d, same, top, pad(kh), left, pad(kw), first};
  const int64_t n = random.from(1, 3), c = random.of<int64_t>({1, 3, 16, 37, 130});
  const int64_t h = random.from(8, 20), w = random.from(8, 30);
  const int64_t x_shape[4] = {n, first ? c : h, first ? h : w, first ? w : c};
  const int64_t window[4] = {kh, kw, c, 1};
  const sepconv::Geometry g = sepconv::resolve(spec, x_shape, window);
  check_alike<T>(arrays, "pool", {drawn<T>(random, n * h * w * c)}, n * g.ho * g.wo * c, -1,
                 [&](auto dtype, const auto& in, void* y, auto& runner) {
                   sepconv::pool(dtype, g, {average, in[0], y}, runner);
                 });
}

template <class T>
void check_one_resize(Arrays& arrays, Random& random) {
  sepconv::ResizeStep step{};
  step.bilinear = !std::is_same_v<T, uint8_t> && random.one_in(2);
  step.channels_first = random.one_in(2);
  step.factor_h = random.from(1, 3);
  step.factor_w = random.from(1, 3);
  step.images = random.from(1, 3);
  step.channels = random.of<int64_t>({1, 3, 16, 37, 130});
  step.h = random.from(1, 9);
  step.w = random.from(1, 12);
  const int64_t count = step.images * step.h * step.w * step.channels;
  check_alike<T>(arrays, "resize", {drawn<T>(random, count)}, count * step.factor_h * step.factor_w,
                 -1, [&](auto dtype, const auto& in, void* y, auto& runner) {
                   sepconv::ResizeStep call = step;
                   call.x = in[0], call.y = y;
                   sepconv::resize(dtype, call, runner);
                 });
}

// ---- bfloat16 alone

using Half = uint16_t;

void check_one_unary(Arrays& arrays, Random& random) {
  const auto function = static_cast<sepconv::Unary>(random.from(0, kUnaries - 1));
  const int64_t count = random.size(kMost);
  check_alike<Half>(arrays, "unary", {drawn<Half>(random, count)}, count, random.from(0, 1) - 1,
                    [&](auto dtype, const auto& in, void* y, auto& runner) {
                      sepconv::unary(dtype, {function, 0.75, 2.5, 0.25, in[0], y, count}, runner);
                    });
}

void check_one_binary(Arrays& arrays, Random& random) {
  sepconv::BinaryStep step{};
  step.function = static_cast<sepconv::Binary>(random.from(0, kBinaries - 1));
  step.rank = static_cast<int>(random.from(1, 4));
  int64_t count = 1, sizes[2] = {1, 1};
  for (int i = step.rank - 1; i >= 0; --i) {
    step.shape[i] = random.size(std::min<int64_t>(kMost / count, 200));
    count *= step.shape[i];
    int64_t* const strides[2] = {step.a_strides, step.b_strides};
    for (int k = 0; k < 2; ++k) {
      const bool repeated = random.one_in(4);
      strides[k][i] = repeated ? 0 : sizes[k];
      if (!repeated) sizes[k] *= step.shape[i];
    }
  }
  std::vector<Half> b = drawn<Half>(random, sizes[1]);
  if (random.one_in(4)) std::fill(b.begin(), b.end(), narrowed<Half>(2.0f));
  check_alike<Half>(arrays, "binary", {drawn<Half>(random, sizes[0]), b}, count, -1,
                    [&](auto dtype, const auto& in, void* y, auto& runner) {
                      sepconv::BinaryStep call = step;
                      call.a = in[0], call.b = in[1], call.y = y;
                      sepconv::binary(dtype, call, runner);
                    });
}

// Axes of [outer, middle, inner].
struct Axes {
  int64_t outer, middle, inner;
  int64_t count() const { return outer * middle * inner; }
};
Axes drawn_axes(Random& random) {
  Axes axes{};
  axes.inner = random.one_in(2) ? 1 : random.size(200);
  axes.middle = random.size(kMost / axes.inner);
  axes.outer = random.size(kMost / (axes.inner * axes.middle));
  return axes;
}

void check_one_scale(Arrays& arrays, Random& random) {
  const Axes s = drawn_axes(random);
  const std::vector<float> scale = some_values<float>(random, s.middle);
  const std::vector<float> shift = some_values<float>(random, s.middle);
  const bool scales = random.one_in(2), shifts = !scales || random.one_in(2);
  check_alike<Half>(arrays, "scale", {drawn<Half>(random, s.count())}, s.count(),
                    random.from(0, 1) - 1, [&](auto dtype, const auto& in, void* y, auto& runner) {
                      sepconv::scale(
                          dtype,
                          {in[0], scales ? scale.data() : nullptr, shifts ? shift.data() : nullptr,
                           y, s.outer, s.middle, s.inner},
                          runner);
                    });
}

void check_one_reduce(Arrays& arrays, Random& random) {
  const Axes s = drawn_axes(random);
  const auto function = random.of({sepconv::Reduction::mean, sepconv::Reduction::max,
                                   sepconv::Reduction::min, sepconv::Reduction::sum});
  check_alike<Half>(arrays, "reduce", {drawn<Half>(random, s.count())}, s.outer * s.inner, -1,
                    [&](auto dtype, const auto& in, void* y, auto& runner) {
                      sepconv::reduce(dtype, {function, in[0], y, s.outer, s.middle, s.inner},
                                      runner);
                    });
}

void check_one_softmax(Arrays& arrays, Random& random) {
  const Axes s = drawn_axes(random);
  const bool logarithm = random.one_in(2);
  check_alike<Half>(arrays, "softmax", {drawn<Half>(random, s.count())}, s.count(),
                    random.from(0, 1) - 1, [&](auto dtype, const auto& in, void* y, auto& runner) {
                      sepconv::softmax(dtype, {logarithm, in[0], y, s.outer, s.middle, s.inner},
                                       runner);
                    });
}

void check_one_layer_norm(Arrays& arrays, Random& random) {
  const Axes s = drawn_axes(random);
  const int64_t rows = s.outer * s.inner;
  const std::vector<float> gamma = some_values<float>(random, s.middle);
  const std::vector<float> beta = some_values<float>(random, s.middle);
  check_alike<Half>(arrays, "layer_norm", {drawn<Half>(random, s.count())}, s.count(),
                    random.from(0, 1) - 1, [&](auto dtype, const auto& in, void* y, auto& runner) {
                      sepconv::layer_norm(
                          dtype, {in[0], gamma.data(), beta.data(), y, rows, s.middle, 1e-3},
                          runner);
                    });
}

// ---- casts

void check_one_cast(Arrays& arrays, Random& random) {
  const int64_t count = random.size(kMost);
  const std::vector<float> numbers = some_values<float>(random, count);
  sepconv::Runner& pool = sepconv::pool();
  std::vector<uint16_t> halves(numbers.size());
  sepconv::cast(sepconv::DType::bf16, {false, numbers.data(), halves.data(), count}, pool);
  hold("cast to bfloat16", halves, numbers);
  std::vector<float> wide(numbers.size());
  sepconv::cast(sepconv::DType::bf16, {true, halves.data(), wide.data(), count}, pool);
  CHECK(same_numbers(wide, widened(halves)));
  const std::vector<uint16_t> all = arrays.run<uint16_t>(
      "cast", {halves}, count, -1, [&](const auto& in, uint16_t* y, auto& runner) {
        std::vector<float> between(numbers.size());
        sepconv::cast(sepconv::DType::bf16, {true, in[0], between.data(), count}, runner);
        sepconv::cast(sepconv::DType::bf16, {false, between.data(), y, count}, runner);
      });
  hold("cast there and back", all, wide);
}

}  // namespace

void check_narrow_arrays(int rounds) {
  Arrays arrays;
  Random random(12);
  for (int i = 0; i < rounds; ++i) {
    check_one_cast(arrays, random);
    check_one_fill<uint16_t>(arrays, random);
    check_one_fill<uint8_t>(arrays, random);
    check_one_copy<uint16_t>(arrays, random);
    check_one_copy<uint8_t>(arrays, random);
    check_one_pool<uint16_t>(arrays, random);
    check_one_pool<uint8_t>(arrays, random);
    check_one_resize<uint16_t>(arrays, random);
    check_one_resize<uint8_t>(arrays, random);
    for (int k = 0; k < 5; ++k) check_one_unary(arrays, random);
    for (int k = 0; k < 3; ++k) check_one_binary(arrays, random);
    check_one_scale(arrays, random);
    check_one_reduce(arrays, random);
    check_one_softmax(arrays, random);
    check_one_layer_norm(arrays, random);
  }
  CHECK_THROWS(sepconv::softmax(sepconv::DType::f16, {}, sepconv::pool()), std::invalid_argument,
               "no such operation of this dtype");
  CHECK_THROWS(sepconv::softmax(sepconv::DType::u8, {}, sepconv::pool()), std::invalid_argument,
               "no such operation of this dtype");
  CHECK_THROWS(sepconv::fill(sepconv::DType::i32, {}, sepconv::pool()), std::invalid_argument,
               "no such operation of this dtype");
}

}  // namespace test
