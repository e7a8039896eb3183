// Random batch normalizations and activations against plain loops in double, with the same bits on
// every runner.
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>

#include "check.h"
#include "half.h"
#include "normalization.h"
#include "runners.h"
#include "sections.h"

namespace test {
namespace {

double activated(sepconv::Activation activation, double v) {
  using sepconv::Activation;
  if (activation == Activation::relu) return v < 0 ? 0 : v;
  if (activation == Activation::relu6) return v < 0 ? 0 : v > 6 ? 6 : v;
  if (activation == Activation::hard_silu) return v * std::min(std::max(v + 3, 0.0), 6.0) / 6;
  if (activation == Activation::silu) return v / (1 + std::exp(-v));
  return v;
}

// An activation's derivative, and how far it may be from that when v is `off` from it: all of a
// step where v is near one.
struct Slope {
  double value, off;
};
Slope slope_of(sepconv::Activation activation, double v, double off) {
  using sepconv::Activation;
  const auto near = [&](std::initializer_list<double> steps) {
    for (const double step : steps)
      if (std::fabs(v - step) <= off) return 1.0;
    return 0.0;
  };
  if (activation == Activation::relu) return {v > 0 ? 1.0 : 0.0, near({0})};
  if (activation == Activation::relu6) return {v > 0 && v < 6 ? 1.0 : 0.0, near({0, 6})};
  if (activation == Activation::hard_silu)
    return {v <= -3 ? 0 : v < 3 ? v / 3 + 0.5 : 1, near({-3, 3}) + off};
  if (activation == Activation::silu) {
    const double gate = 1 / (1 + std::exp(-v));
    return {gate * (1 + v * (1 - gate)), off};
  }
  return {1, 0};
}

// Which results are further from the plain loops' than rounding explains.
template <class T, class R>
std::string wrong(const Sizes& z, const Operands<T, R>& in, const Outputs<T, R>& out) {
  const double count = static_cast<double>(z.s.outer * z.s.inner);
  const double unit = std::numeric_limits<R>::epsilon();
  std::string text;
  const auto hold = [&](const char* name, double received, double expected, double scale) {
    const double most = unit * scale;
    if (!(std::fabs(received - expected) <= most) && text.find(name) == std::string::npos)
      text += std::string(name) + " ";
  };
  // An array's element, which a half type rounds once.
  const auto hold_stored = [&](const char* name, double received, double expected, double scale) {
    const double rounding = Rounding<T>::stored * 1.01 * std::fabs(expected) + Rounding<T>::least;
    hold(name, received, expected, scale + rounding / unit);
  };
  for (int64_t c = 0; c < z.s.channels; ++c) {
    const auto each = [&](auto f) {
      for (int64_t o = 0; o < z.s.outer; ++o)
        for (int64_t i = 0; i < z.s.inner; ++i)
          f(static_cast<size_t>((o * z.s.channels + c) * z.s.inner + i));
    };
    const auto at = static_cast<size_t>(c);
    // In double they would have no more digits than what they check.
    long double sum = 0, squares = 0, total = 0, along = 0;
    each([&](size_t i) { sum += static_cast<double>(in.x[i]); });
    const auto mean = static_cast<double>(sum / static_cast<long double>(count));
    each([&](size_t i) {
      const double d = static_cast<double>(in.x[i]) - mean;
      squares += static_cast<long double>(d) * d;
    });
    const auto variance = static_cast<double>(squares / static_cast<long double>(count));
    double size = 0, off_total = 0;
    const double inverse = 1 / std::sqrt(variance + z.s.epsilon);
    // The mean is handed on as a T, whose last place is this far from it in deviations.
    const double shift = std::fabs(mean) * inverse;
    const double gamma = z.gamma ? static_cast<double>(in.gamma[at]) : 1;
    const double beta = z.beta ? static_cast<double>(in.beta[at]) : 0;
    const auto normal_of = [&](size_t i) {
      return (static_cast<double>(in.x[i]) - mean) * inverse;
    };
    // How far a result before its activation may be from what it should be, in units.
    const auto room_of = [&](size_t i) {
      return 200 * (1 + std::fabs(normal_of(i)) + shift) * (std::fabs(gamma) + 1);
    };
    const auto slope = [&](size_t i) {
      return slope_of(z.s.activation, normal_of(i) * gamma + beta, unit * room_of(i));
    };
    each([&](size_t i) {
      const double full = in.dy[i], dy = full * slope(i).value;
      total += dy;
      along += dy * normal_of(i);
      size += std::fabs(dy) * (1 + shift);
      off_total += std::fabs(full) * slope(i).off * (1 + std::fabs(normal_of(i)));
    });
    hold("mean", out.mean[at], mean, 8 * (1 + std::fabs(mean)));
    // A double that holds the mean is that far from it.
    const double off = std::numeric_limits<double>::epsilon() * std::fabs(mean);
    hold("variance", out.variance[at], variance,
         200 * variance + 8 * off / unit * std::sqrt(variance));
    const auto dgamma = static_cast<double>(along), dbeta = static_cast<double>(total);
    hold("dgamma", out.dgamma[at], dgamma, 100 * (1 + size) + off_total / unit);
    hold("dbeta", out.dbeta[at], dbeta, 100 * (1 + size) + off_total / unit);
    if (!z.arrays) continue;
    const double scale = std::fabs(gamma * inverse);
    each([&](size_t i) {
      const double normal = normal_of(i), dy = in.dy[i];
      hold_stored("y", out.y[i], activated(z.s.activation, normal * gamma + beta), 2 * room_of(i));
      const double room = 200 * (1 + std::fabs(normal) + shift) * (1 + std::fabs(normal));
      const double off = std::fabs(dy) * slope(i).off + off_total / count * (1 + std::fabs(normal));
      hold_stored("dx", out.dx[i],
                  gamma * inverse * (dy * slope(i).value - dbeta / count - normal * dgamma / count),
                  scale * (room * (1 + size / count) + off / unit));
    });
  }
  return text;
}

template <class T, class R = T>
void check_one(sepconv::DType dtype, const Sizes& z, uint32_t seed, Buffers& buffers,
               EngineThreads& engine) {
  const Operands<T, R> in = random_operands<T, R>(z, seed);
  sepconv::set_num_threads(3);
  const Outputs<T, R> first = run(z, dtype, in, sepconv::pool(), buffers);
  std::string why = wrong(z, in, first);
  buffers.turn();
  ReverseRunner reverse;
  if (!(run(z, dtype, in, reverse, buffers) == first)) why += "other bits in reverse ";
  sepconv::ExternalRunner external = engine.runner(3);
  if (!(run(z, dtype, in, external, buffers) == first)) why += "other bits on an engine's threads ";
  sepconv::set_num_threads(1);
  if (!(run(z, dtype, in, sepconv::pool(), buffers) == first)) why += "other bits on one thread ";
  if (!CHECK(why.empty()))
    std::fprintf(stderr,
                 "  %sof outer,channels,inner=%ld,%ld,%ld offset=%g gamma,beta,arrays=%d,%d,%d "
                 "activation=%d dtype=%d seed=%u\n",
                 why.c_str(), static_cast<long>(z.s.outer), static_cast<long>(z.s.channels),
                 static_cast<long>(z.s.inner), z.offset, z.gamma, z.beta, z.arrays,
                 static_cast<int>(z.s.activation), static_cast<int>(dtype), seed);
}

// Of nothing, mean and variance are NaN, as 0 / 0 is; a channel that never changes has no variance.
void check_edges() {
  for (const sepconv::BatchNorm& s : {sepconv::BatchNorm{0, 5, 1, 1e-3}, {2, 5, 0, 1e-3}}) {
    float mean[5] = {}, variance[5] = {}, nothing = 0;
    sepconv::batch_norm_forward(sepconv::DType::f32, s,
                                {&nothing, nullptr, nullptr, &nothing, mean, variance},
                                sepconv::pool());
    for (int c = 0; c < 5; ++c) CHECK(std::isnan(mean[c]) && std::isnan(variance[c]));
  }
  for (const sepconv::BatchNorm& s : {sepconv::BatchNorm{1000, 3, 1, 0}, {10, 3, 100, 0}}) {
    const std::vector<float> x(3000, 1234.567F);
    std::vector<float> mean(3), variance(3);
    sepconv::batch_norm_forward(sepconv::DType::f32, s,
                                {x.data(), nullptr, nullptr, nullptr, mean.data(), variance.data()},
                                sepconv::pool());
    for (size_t c = 0; c < 3; ++c) CHECK(mean[c] == x[0] && variance[c] == 0);
  }
}

}  // namespace

void check_batch_norm(int problems) {
  Buffers buffers;
  EngineThreads engine(2);
  std::mt19937 random(7);
  for (int i = 0; i < problems; ++i) {
    const Sizes z = random_sizes(random);
    const auto seed = static_cast<uint32_t>(10 * i);
    if (i % 4 == 1) check_one<BFloat16, float>(sepconv::DType::bf16, z, seed, buffers, engine);
    if (i % 4 == 3) check_one<Float16, float>(sepconv::DType::f16, z, seed, buffers, engine);
    if (i % 3 == 2)
      check_one<double>(sepconv::DType::f64, z, seed, buffers, engine);
    else
      check_one<float>(sepconv::DType::f32, z, seed, buffers, engine);
  }
  check_edges();
}

}  // namespace test
