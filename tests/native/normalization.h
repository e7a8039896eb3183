// Random batch normalizations, and their runs on guarded buffers.
#pragma once
#include "check.h"
#include "run.h"

namespace test {

struct Sizes {
  sepconv::BatchNorm s;
  double offset;             // of x: a mean that must not cost digits
  bool gamma, beta, arrays;  // whether there are the first two, and whether y and dx are wanted
  int64_t elements() const { return s.outer * s.channels * s.inner; }
};

// Arrays are of T, and numbers of channels of R.
template <class T, class R = T>
struct Outputs {
  std::vector<T> y;
  std::vector<R> mean, variance;
  std::vector<T> dx;
  std::vector<R> dgamma, dbeta;
  bool operator==(const Outputs&) const = default;
};

inline Sizes random_sizes(std::mt19937& random) {
  const auto from = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  Sizes z{};
  const int64_t kind = from(0, 3);
  z.s.channels = kind == 0 ? from(1, 9) : kind == 1 ? from(1, 70) : from(1, 800);
  z.s.inner = from(0, 1) != 0 ? 1 : from(1, kind == 0 ? 20000 : 300);
  z.s.inner = std::min(z.s.inner, kMostElements / z.s.channels);
  const int64_t most = kMostElements / (z.s.channels * z.s.inner);
  z.s.outer = from(1, from(0, 2) == 0 ? most : std::min<int64_t>(most, 40));
  z.s.epsilon = from(0, 1) != 0 ? 1e-3 : 1e-5;
  z.offset = from(0, 2) == 0 ? 300 : 0;
  z.gamma = from(0, 3) != 0;
  z.beta = from(0, 3) != 0;
  z.arrays = from(0, 3) != 0;
  z.s.activation = static_cast<sepconv::Activation>(from(0, 4));
  return z;
}

template <class T, class R = T>
struct Operands {
  std::vector<T> x, dy;
  std::vector<R> gamma, beta;
};

template <class T, class R = T>
Operands<T, R> random_operands(const Sizes& z, uint32_t seed) {
  const auto values = [&]<class V>(int64_t count, uint32_t which, std::vector<V>& into) {
    into = random_values<V>(count, seed + which, Special::none);
  };
  Operands<T, R> in;
  values(z.elements(), 0, in.x);
  values(z.elements(), 1, in.dy);
  values(z.gamma ? z.s.channels : 0, 2, in.gamma);
  values(z.beta ? z.s.channels : 0, 3, in.beta);
  for (T& value : in.x) value = static_cast<T>(value + z.offset);
  // So that results reach all parts of an activation.
  if (z.s.activation != sepconv::Activation::none)
    for (R& value : in.gamma) value *= 6;
  return in;
}

template <class T, class R>
Outputs<T, R> run(const Sizes& z, sepconv::DType dtype, const Operands<T, R>& in,
                  sepconv::Runner& runner, Buffers& buffers) {
  const int64_t n = z.elements(), channels = z.s.channels;
  const T* x = buffers.input(kX, in.x);
  const R* gamma = z.gamma ? buffers.input(kKernel, in.gamma) : nullptr;
  const R* beta = z.beta ? buffers.input(kPointwise, in.beta) : nullptr;
  T* y = z.arrays ? buffers.output<T>(kY, n) : nullptr;
  R *mean = buffers.output<R>(kDkernel, channels),
    *variance = buffers.output<R>(kDpointwise, channels);
  sepconv::batch_norm_forward(dtype, z.s, {x, gamma, beta, y, mean, variance}, runner);
  T* dx = z.arrays ? buffers.output<T>(kDx, n) : nullptr;
  R *dgamma = buffers.output<R>(kDbias, channels), *dbeta = buffers.output<R>(kBias, channels);
  const T* dy = buffers.input(kDy, in.dy);
  sepconv::batch_norm_backward(dtype, z.s, {x, gamma, beta, mean, variance, dy, dx, dgamma, dbeta},
                               runner);
  CHECK(buffers.intact());
  return {copied(y, n),  copied(mean, channels),   copied(variance, channels),
          copied(dx, n), copied(dgamma, channels), copied(dbeta, channels)};
}

}  // namespace test
