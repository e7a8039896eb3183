// Random batch normalizations against plain loops in double, with the same bits on every runner.
#include <cmath>
#include <limits>
#include <string>

#include "check.h"
#include "half.h"
#include "normalization.h"
#include "runners.h"
#include "sections.h"

namespace test {
namespace {

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
    double size = 0;
    const double inverse = 1 / std::sqrt(variance + z.s.epsilon);
    // The mean is handed on as a T, whose last place is this far from it in deviations.
    const double shift = std::fabs(mean) * inverse;
    each([&](size_t i) {
      const double dy = in.dy[i];
      total += dy;
      along += dy * (static_cast<double>(in.x[i]) - mean) * inverse;
      size += std::fabs(dy) * (1 + shift);
    });
    const double gamma = z.gamma ? static_cast<double>(in.gamma[at]) : 1;
    const double beta = z.beta ? static_cast<double>(in.beta[at]) : 0;
    hold("mean", out.mean[at], mean, 8 * (1 + std::fabs(mean)));
    // A double that holds the mean is that far from it.
    const double off = std::numeric_limits<double>::epsilon() * std::fabs(mean);
    hold("variance", out.variance[at], variance,
         100 * variance + 8 * off / unit * std::sqrt(variance));
    const auto dgamma = static_cast<double>(along), dbeta = static_cast<double>(total);
    hold("dgamma", out.dgamma[at], dgamma, 100 * (1 + size));
    hold("dbeta", out.dbeta[at], dbeta, 100 * (1 + size));
    if (!z.arrays) continue;
    const double scale = std::fabs(gamma * inverse);
    each([&](size_t i) {
      const double normal = (static_cast<double>(in.x[i]) - mean) * inverse;
      const double room = 200 * (1 + std::fabs(normal) + shift);
      hold_stored("y", out.y[i], normal * gamma + beta, room * (std::fabs(gamma) + 1));
      hold_stored("dx", out.dx[i],
                  gamma * inverse * (in.dy[i] - dbeta / count - normal * dgamma / count),
                  room * scale * (1 + std::fabs(normal)) * (1 + size / count));
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
                 "dtype=%d seed=%u\n",
                 why.c_str(), static_cast<long>(z.s.outer), static_cast<long>(z.s.channels),
                 static_cast<long>(z.s.inner), z.offset, z.gamma, z.beta, z.arrays,
                 static_cast<int>(dtype), seed);
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
