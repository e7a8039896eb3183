// The int8 operations between convolutions on random arrays, to the bit as int8_reference.h rounds.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "../../native/quantized.h"
#include "check.h"
#include "int8_reference.h"
#include "sections.h"

namespace test {
namespace {

std::mt19937 random_numbers(0);

int64_t between(int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(random_numbers);
}
int32_t byte() { return static_cast<int32_t>(between(0, 255)); }
float scale(double most) {
  return static_cast<float>(std::uniform_real_distribution<double>(0, most)(random_numbers));
}
std::vector<uint8_t> bytes(int64_t count) {
  std::vector<uint8_t> drawn(static_cast<size_t>(count));
  for (uint8_t& value : drawn) value = static_cast<uint8_t>(byte());
  return drawn;
}
size_t index(int64_t i) { return static_cast<size_t>(i); }

void check_conversions() {
  const int64_t count = between(1, 40000);
  std::vector<float> x(index(count));
  for (float& value : x) {
    const uint32_t bits = random_numbers();
    if (between(0, 1) == 0)
      __builtin_memcpy(&value, &bits, sizeof value);
    else
      value = static_cast<float>(between(-600, 600)) / 2;
  }
  x[0] = NAN;
  const int32_t zero_point = byte();
  const float multiplier = between(0, 1) == 0 ? 1.0f : scale(3);
  std::vector<uint8_t> q(index(count), 0x5a), looked_up(index(count));
  sepconv::quantize({multiplier, zero_point, x.data(), q.data(), count}, sepconv::pool());
  bool right = true;
  for (int64_t i = 0; i < count; ++i) {
    const float t = times(x[index(i)], multiplier);
    right &= q[index(i)] == rounded(std::isnan(t) ? 0 : t, zero_point, 0, 255);
  }
  CHECK(right);
  const float step = scale(2);
  std::vector<float> back(index(count));
  sepconv::dequantize({step, zero_point, q.data(), back.data(), count}, sepconv::pool());
  const std::vector<uint8_t> table = bytes(256);
  sepconv::lookup({table.data(), q.data(), looked_up.data(), count}, sepconv::pool());
  for (int64_t i = 0; i < count; ++i) {
    right &= back[index(i)] == times(static_cast<float>(q[index(i)] - zero_point), step);
    right &= looked_up[index(i)] == table[q[index(i)]];
  }
  sepconv::lookup({table.data(), q.data(), q.data(), count}, sepconv::pool());
  CHECK(right && q == looked_up);
}

void check_binary() {
  sepconv::QuantizedBinaryStep step{};
  const bool adds = between(0, 1) == 0;
  step.function = adds ? sepconv::QuantizedBinary::add : sepconv::QuantizedBinary::multiply;
  step.a_zero_point = byte(), step.b_zero_point = byte(), step.zero_point = byte();
  step.a_scale = scale(adds ? 2 : 0.03), step.b_scale = adds ? scale(2) : 1;
  step.lower = static_cast<int32_t>(between(0, 100));
  step.upper = static_cast<int32_t>(between(100, 255));
  step.rank = 3;
  int64_t sizes[2] = {1, 1}, count = 1;
  for (int axis = 3; axis-- > 0;) {
    step.shape[axis] = between(1, axis == 2 ? 200 : 9);
    count *= step.shape[axis];
    int64_t* const strides[2] = {step.a_strides, step.b_strides};
    for (int i = 0; i < 2; ++i) {
      const bool whole = between(0, 3) != 0;
      strides[i][axis] = whole ? sizes[i] : 0;
      if (whole) sizes[i] *= step.shape[axis];
    }
  }
  const std::vector<uint8_t> a = bytes(sizes[0]), b = bytes(sizes[1]);
  std::vector<uint8_t> y(index(count));
  step.a = a.data(), step.b = b.data(), step.y = y.data();
  sepconv::quantized_binary(step, sepconv::pool());
  bool right = true;
  int64_t at = 0;
  for (int64_t i = 0; i < step.shape[0]; ++i)
    for (int64_t j = 0; j < step.shape[1]; ++j)
      for (int64_t k = 0; k < step.shape[2]; ++k, ++at) {
        const int64_t* const sa = step.a_strides;
        const int64_t* const sb = step.b_strides;
        const int32_t from_a = a[index(i * sa[0] + j * sa[1] + k * sa[2])] - step.a_zero_point;
        const int32_t from_b = b[index(i * sb[0] + j * sb[1] + k * sb[2])] - step.b_zero_point;
        const float t = adds ? plus(times(static_cast<float>(from_a), step.a_scale),
                                    times(static_cast<float>(from_b), step.b_scale))
                             : times(static_cast<float>(from_a * from_b), step.a_scale);
        right &= y[index(at)] == rounded(t, step.zero_point, step.lower, step.upper);
      }
  CHECK(right);
}

void check_mean() {
  sepconv::QuantizedMeanStep step{};
  step.outer = between(1, 5), step.count = between(1, 300);
  step.inner = between(0, 1) == 0 ? 1 : between(1, 600);
  step.input_zero_point = byte(), step.zero_point = byte();
  step.scale = scale(4) / static_cast<float>(step.count);
  const std::vector<uint8_t> x = bytes(step.outer * step.count * step.inner);
  std::vector<uint8_t> y(index(step.outer * step.inner));
  step.x = x.data(), step.y = y.data();
  sepconv::quantized_mean(step, sepconv::pool());
  bool right = true;
  for (int64_t o = 0; o < step.outer; ++o)
    for (int64_t i = 0; i < step.inner; ++i) {
      int64_t sum = 0;
      for (int64_t k = 0; k < step.count; ++k)
        sum += x[index((o * step.count + k) * step.inner + i)] - step.input_zero_point;
      const float t = times(static_cast<float>(sum), step.scale);
      right &= y[index(o * step.inner + i)] == rounded(t, step.zero_point, 0, 255);
    }
  CHECK(right);
}

void check_average_pool() {
  sepconv::Geometry g{};
  g.n = between(1, 2), g.h = between(3, 12), g.w = between(3, 12);
  g.c = between(0, 1) == 0 ? between(1, 20) : between(250, 300);
  g.kh = between(1, 3), g.kw = between(1, 3), g.m = 1;
  g.sh = between(1, 2), g.sw = between(1, 2), g.dh = between(1, 2), g.dw = 1;
  g.pt = between(0, g.kh - 1), g.pl = between(0, g.kw - 1);
  g.ho = between(1, (g.h - 1) / g.sh + 1), g.wo = between(1, (g.w - 1) / g.sw + 1);
  g.channels_first = between(0, 2) == 0;
  const std::vector<uint8_t> x = bytes(g.n * g.h * g.w * g.c);
  std::vector<uint8_t> y(index(g.n * g.ho * g.wo * g.c));
  const sepconv::QuantizedAveragePoolStep step{byte(), byte(), scale(3), x.data(), y.data()};
  sepconv::quantized_average_pool(g, step, sepconv::pool());
  bool right = true;
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t p = 0; p < g.ho; ++p)
      for (int64_t q = 0; q < g.wo; ++q)
        for (int64_t c = 0; c < g.c; ++c) {
          int64_t sum = 0, pixels = 0;
          each_tap(g, x.data(), n, p, q, c, [&](int64_t, int64_t value) {
            sum += value - step.input_zero_point;
            ++pixels;
          });
          const volatile float each = step.scale / static_cast<float>(std::max<int64_t>(pixels, 1));
          const float t = times(static_cast<float>(sum), each);
          right &= y[at(g, n, p, q, c, g.ho, g.wo, g.c)] == rounded(t, step.zero_point, 0, 255);
        }
  CHECK(right);
}

}  // namespace

void check_int8_arrays(int rounds) {
  for (int round = 0; round < rounds; ++round) {
    check_conversions();
    check_binary();
    check_mean();
    check_average_pool();
  }
}

}  // namespace test
