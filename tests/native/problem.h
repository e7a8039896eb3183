// One call to check: a convolution, which of its buffers there are, and how their numbers are made.
// Made from a string of bytes, which a fuzzer or a random generator supplies.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <vector>

#include "../../native/dispatch.h"
#include "half.h"

namespace test {

// Reads choices off a string of bytes; zeros follow its end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint64_t raw(int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; ++i) value = value << 8 | (at_ < size_ ? data_[at_++] : 0);
    return value;
  }
  int64_t from(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(raw(high - low < 256 ? 1 : 2) %
                                      static_cast<uint64_t>(high - low + 1));
  }
  bool flag() { return (raw(1) & 1) != 0; }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

enum class Numbers { ordinary, nonfinite_x, nonfinite_dy, nonfinite_weights, denormal };

struct Problem {
  sepconv::Geometry g;
  sepconv::DType dtype;
  bool separable;
  int64_t filters;
  bool bias;
  sepconv::Activation activation;
  // Of a separable convolution only.
  bool depthwise_bias, residual;
  sepconv::Activation depthwise_activation;
  bool want_dx, want_ddepthwise, want_dpointwise, want_dbias;
  bool drop_unneeded;  // inputs that the wanted gradients do not need are null
  Numbers numbers;
  uint32_t seed;
  bool selecting;  // output channel c * taps + tap is input channel c under that tap
  bool ordinary;   // forward is called for the ordinary convolution that this is

  int64_t depthwise_channels() const { return g.c * g.m; }
  int64_t outputs() const { return separable ? filters : depthwise_channels(); }
  int64_t x_elements() const { return g.n * g.h * g.w * g.c; }
  int64_t y_elements() const { return g.n * g.ho * g.wo * outputs(); }
  int64_t depthwise_elements() const { return g.kh * g.kw * depthwise_channels(); }
  // The geometry that forward is called with.
  sepconv::Geometry forward_geometry() const {
    sepconv::Geometry of = g;
    if (ordinary) of.m = 1;
    return of;
  }
  int64_t pointwise_elements() const { return separable ? depthwise_channels() * filters : 0; }
  int64_t products() const {
    const int64_t pixels = g.n * g.ho * g.wo * depthwise_channels();
    return pixels * (g.kh * g.kw + (separable ? filters : 0));
  }
};

inline constexpr int64_t kMostElements = 1 << 17;  // of any buffer
inline constexpr int64_t kMostProducts = 1 << 21;

// Sizes are cut until buffers and work are bounded. Throws std::invalid_argument where `resolve`
// does.
inline Problem read_problem(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  Problem p{};
  const int64_t largest = bytes.flag() ? 12 : bytes.flag() ? 40 : 300;
  const int64_t most_channels = bytes.flag() ? 9 : bytes.flag() ? 70 : 300;
  const int64_t most_taps = bytes.flag() ? 4 : 13;
  int64_t n = bytes.from(0, 5), h = bytes.from(1, largest), w = bytes.from(1, largest);
  int64_t c = bytes.from(1, most_channels), m = bytes.flag() ? 1 : bytes.from(1, 5);
  int64_t kh = bytes.from(1, most_taps), kw = bytes.from(1, most_taps);
  sepconv::Spec spec{};
  spec.stride_h = bytes.flag() ? 1 : bytes.from(1, 7);
  spec.stride_w = bytes.flag() ? 1 : bytes.from(1, 7);
  spec.dilation_h = bytes.flag() ? 1 : bytes.from(1, 9);
  spec.dilation_w = bytes.flag() ? 1 : bytes.from(1, 9);
  spec.same = bytes.flag();
  if (!spec.same) {
    spec.pad_top = bytes.from(0, 20);
    spec.pad_bottom = bytes.from(0, 20);
    spec.pad_left = bytes.from(0, 20);
    spec.pad_right = bytes.from(0, 20);
  }
  spec.channels_first = bytes.flag();
  constexpr sepconv::DType kDTypes[] = {sepconv::DType::f32, sepconv::DType::f32,
                                        sepconv::DType::f64, sepconv::DType::bf16,
                                        sepconv::DType::f16};
  p.dtype = kDTypes[bytes.from(0, 4)];
  p.separable = bytes.flag();
  p.filters = p.separable ? bytes.from(1, bytes.flag() ? 20 : 200) : 0;
  p.bias = bytes.flag();
  p.activation = static_cast<sepconv::Activation>(bytes.from(0, 4));
  p.depthwise_bias = p.separable && bytes.flag();
  p.residual = p.separable && bytes.flag();
  p.depthwise_activation = static_cast<sepconv::Activation>(p.separable ? bytes.from(0, 4) : 0);
  p.want_dx = bytes.flag();
  p.want_ddepthwise = bytes.flag();
  p.want_dpointwise = p.separable && bytes.flag();
  p.want_dbias = bytes.flag();
  p.drop_unneeded = bytes.flag();
  p.numbers = static_cast<Numbers>(bytes.flag() ? 0 : bytes.from(0, 4));
  p.seed = static_cast<uint32_t>(bytes.raw(2));
  p.selecting = p.separable && bytes.from(0, 7) == 7 && p.numbers != Numbers::nonfinite_x &&
                p.numbers != Numbers::nonfinite_weights;
  if (p.selecting) {
    kh = std::min<int64_t>(kh, 4);
    kw = std::min<int64_t>(kw, 4);
    m = kh * kw;
  }
  p.ordinary = p.selecting && !spec.channels_first && !p.depthwise_bias &&
               p.depthwise_activation == sepconv::Activation::none;
  for (;;) {
    const int64_t x[4] = {n, spec.channels_first ? c : h, spec.channels_first ? h : w,
                          spec.channels_first ? w : c};
    const int64_t kernel[4] = {kh, kw, c, m};
    p.g = sepconv::resolve(spec, x, kernel);
    const int64_t middle = p.g.n * p.g.ho * p.g.wo * p.depthwise_channels();
    if (std::max({p.x_elements(), p.y_elements(), middle, p.depthwise_elements(),
                  p.pointwise_elements()}) <= kMostElements &&
        p.products() <= kMostProducts)
      return p;
    // The largest size first, but what makes a convolution odd (its kernel) stays.
    if (n > 1)
      n = (n + 1) / 2;
    else if (c > 16)
      c = (c + 1) / 2;
    else if (p.filters > 16)
      p.filters = (p.filters + 1) / 2;
    else if (h >= w && h > 1)
      h = (h + 1) / 2;
    else if (w > 1)
      w = (w + 1) / 2;
    else if (kh >= kw && kh > 1)
      kh = (kh + 1) / 2;
    else
      kw = (kw + 1) / 2;
    if (p.selecting) m = kh * kw;
  }
}

// The first of the seeds from `seed` on that gives a convolution with an output.
inline Problem random_problem(uint32_t seed) {
  std::mt19937 random(seed);
  for (;;) {
    uint8_t bytes[64];
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
    try {
      return read_problem(bytes, sizeof bytes);
    } catch (const std::invalid_argument&) {
    }
  }
}

// So many channels that pixels lie a multiple of 2 KiB apart, where small kernels see a copy of
// them.
inline Problem conflicting_problem(uint32_t seed) {
  std::mt19937 random(seed);
  const auto pick = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  Problem p{};
  const int64_t c = 512 * pick(1, 2);
  const int64_t x[4] = {pick(0, 2), pick(1, 9), pick(1, 9), c};
  const int64_t kernel[4] = {pick(0, 2) == 0 ? 1 : 3, pick(0, 3) == 0 ? 1 : 3, c, 1};
  const int64_t stride = pick(1, 2), dilation = stride == 1 ? pick(1, 4) : 1;
  p.g = sepconv::resolve({stride, stride, dilation, dilation, 1, 0, 0, 0, 0, 0}, x, kernel);
  p.dtype = random() % 4 == 0 ? sepconv::DType::bf16 : sepconv::DType::f32;
  p.separable = random() % 3 == 0;
  p.filters = p.separable ? 17 : 0;
  p.bias = random() % 2;
  p.activation = static_cast<sepconv::Activation>(pick(0, 4));
  p.want_dx = p.want_ddepthwise = true;
  p.want_dpointwise = p.separable;
  p.seed = random();
  return p;
}

// Small planes of many channels that come first: a depthwise step works on copies where they come
// last.
inline Problem turned_problem(uint32_t seed) {
  std::mt19937 random(seed);
  const auto pick = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  Problem p{};
  const int64_t c = pick(15, 90);
  const bool few = random() % 3 == 0;
  const int64_t x[4] = {few ? pick(0, 3) : pick(4, 6), c, pick(1, few ? 4 : 16),
                        pick(1, few ? 4 : 16)};
  const int64_t kernel[4] = {pick(1, 5), pick(1, 5), c, 1};
  p.g = sepconv::resolve({pick(1, 3), pick(1, 3), pick(1, 2), pick(1, 2), 1, 0, 0, 0, 0, 1}, x,
                         kernel);
  p.dtype = static_cast<sepconv::DType>(random() % 4);
  p.separable = random() % 3 == 0;
  p.filters = p.separable ? pick(1, 40) : 0;
  p.bias = random() % 2;
  p.activation = static_cast<sepconv::Activation>(pick(0, 4));
  p.want_dx = random() % 4 != 0;
  p.want_ddepthwise = random() % 4 != 0;
  p.want_dpointwise = p.separable && random() % 2;
  p.want_dbias = random() % 2;
  p.numbers = static_cast<Numbers>(random() % 2 ? 0 : pick(0, 4));
  p.seed = random();
  return p;
}

// A 1x1 product, and the convolution by a kernel of one tap that says the same.
struct Product {
  Problem problem;
  sepconv::Pointwise shape;
};

inline Product random_product(uint32_t seed) {
  std::mt19937 random(seed);
  const auto pick = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  Problem p{};
  const int64_t n = pick(0, 3), h = pick(1, 17), w = pick(1, 17);
  const int64_t c = pick(1, random() % 2 ? 9 : 90);
  const bool first = random() % 2;
  const int64_t x[4] = {n, first ? c : h, first ? h : w, first ? w : c};
  const int64_t kernel[4] = {1, 1, c, 1};
  p.g = sepconv::resolve({1, 1, 1, 1, 0, 0, 0, 0, 0, first}, x, kernel);
  p.dtype = static_cast<sepconv::DType>(random() % 4);
  p.separable = true;
  p.filters = pick(1, random() % 2 ? 9 : 90);
  p.bias = random() % 2;
  p.activation = static_cast<sepconv::Activation>(pick(0, 4));
  p.residual = random() % 2;
  p.want_dx = random() % 2;
  p.want_dpointwise = random() % 2;
  p.want_dbias = random() % 2;
  p.numbers = static_cast<Numbers>(random() % 2 ? 0 : pick(0, 4));
  p.seed = random();
  return {p, {n, h * w, c, p.filters, first}};
}

// Which of the values of a buffer are made special.
enum class Special { none, nonfinite, denormal };

template <class T>
std::vector<T> random_values(int64_t count, uint32_t seed, Special special) {
  std::mt19937 random(seed);
  std::vector<T> values(static_cast<size_t>(count));
  for (T& v : values)
    v = static_cast<T>(static_cast<double>(random() & 0xffffff) / (1 << 23) - 1.0);
  if (special == Special::none || count == 0) return values;
  const double infinite = std::numeric_limits<double>::infinity();
  const T kinds[] = {static_cast<T>(infinite), static_cast<T>(-infinite),
                     static_cast<T>(std::nan("")), T(0), T(-0.0)};
  const T normal = Least<T>::normal(), denormal = Least<T>::denormal();
  const T small[] = {denormal, static_cast<T>(-denormal), static_cast<T>(normal / 3), normal};
  const int64_t many = std::min<int64_t>(1 + count / 40, 6);
  for (int64_t i = 0; i < many; ++i) {
    T& v = values[random() % values.size()];
    v = special == Special::nonfinite ? kinds[random() % 5] : small[random() % 4];
  }
  return values;
}

}  // namespace test
