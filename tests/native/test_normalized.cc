// The gradients of a convolution and the batch normalization after it, together, against the two
// apart, which have tests of their own: of x, gamma and beta the same bits, and on every runner.
#include "../../native/normalized.h"

#include <cmath>
#include <limits>
#include <variant>

#include "arrays.h"
#include "normalization.h"
#include "runners.h"
#include "sections.h"

namespace test {
namespace {

using sepconv::DType;
using sepconv::Geometry;
using sepconv::NormalizedBackward;
using sepconv::Pointwise;

// A depthwise convolution, or a 1x1 one with a kernel [filters, channels].
struct Convolution {
  std::variant<Geometry, Pointwise> of;

  int64_t inputs() const {
    if (const auto* g = std::get_if<Geometry>(&of)) return g->n * g->h * g->w * g->c;
    const Pointwise& p = std::get<Pointwise>(of);
    return p.images * p.pixels * p.channels;
  }
  int64_t weights() const {
    if (const auto* g = std::get_if<Geometry>(&of)) return g->kh * g->kw * g->c * g->m;
    const Pointwise& p = std::get<Pointwise>(of);
    return p.channels * p.filters;
  }
  sepconv::BatchNorm normalization(sepconv::Activation activation) const {
    if (const auto* g = std::get_if<Geometry>(&of))
      return {g->n * g->ho * g->wo, g->c * g->m, 1, 1e-3, activation};
    const Pointwise& p = std::get<Pointwise>(of);
    return {p.images * p.pixels, p.filters, 1, 1e-3, activation};
  }
  void backward(DType dtype, const void* x, const void* kernel, const void* dv, void* dx,
                void* dkernel) const {
    sepconv::Runner& runner = sepconv::pool();
    if (const auto* g = std::get_if<Geometry>(&of)) {
      sepconv::backward(
          dtype, *g,
          {.x = x, .depthwise_kernel = kernel, .dy = dv, .dx = dx, .ddepthwise = dkernel}, runner);
      return;
    }
    Pointwise turned = std::get<Pointwise>(of);
    std::swap(turned.channels, turned.filters);
    sepconv::pointwise_forward(dtype, turned, {.x = dv, .pointwise_kernel = kernel, .y = dx},
                               runner);
    sepconv::pointwise_backward(dtype, turned, {.x = dv, .dy = x, .dpointwise = dkernel}, runner);
  }
};

template <class T>
struct Given {
  std::vector<T> x, kernel, v, gamma, beta, mean, variance, dy;
};

template <class T>
struct Found {
  std::vector<T> dx, dkernel, dgamma, dbeta;
  // Of no pixels, gamma's gradient is NaN.
  bool operator==(const Found& other) const {
    return same_numbers(dx, other.dx) && same_numbers(dkernel, other.dkernel) &&
           same_numbers(dgamma, other.dgamma) && same_numbers(dbeta, other.dbeta);
  }
};

template <class T>
Given<T> make(const Convolution& convolution, DType dtype, const sepconv::BatchNorm& s,
              uint32_t seed) {
  const auto values = [&](int64_t count, uint32_t which) {
    return random_values<T>(count, seed + which, Special::none);
  };
  const int64_t size = s.outer * s.channels;
  Given<T> in{values(convolution.inputs(), 0),
              values(convolution.weights(), 1),
              values(size, 2),
              values(s.channels, 3),
              values(s.channels, 4),
              std::vector<T>(static_cast<size_t>(s.channels)),
              std::vector<T>(static_cast<size_t>(s.channels)),
              values(size, 5)};
  for (T& value : in.gamma) value *= 6;  // so that results reach all parts of an activation
  sepconv::batch_norm_forward(
      dtype, s, {.x = in.v.data(), .mean = in.mean.data(), .variance = in.variance.data()},
      sepconv::pool());
  return in;
}

template <class T>
Found<T> run(const Convolution& convolution, DType dtype, const sepconv::BatchNorm& s,
             const Given<T>& in, bool for_x, bool for_kernel, sepconv::Runner& runner,
             Buffers& buffers) {
  T* const dx = for_x ? buffers.output<T>(kDx, convolution.inputs()) : nullptr;
  T* const dkernel = for_kernel ? buffers.output<T>(kDkernel, convolution.weights()) : nullptr;
  T *const dgamma = buffers.output<T>(kDbias, s.channels), *const dbeta = buffers.output<T>(
                                                               kDpointwise, s.channels);
  const NormalizedBackward args{.x = buffers.input(kX, in.x),
                                .kernel = buffers.input(kKernel, in.kernel),
                                .norm = {.x = buffers.input(kY, in.v),
                                         .gamma = buffers.input(kPointwise, in.gamma),
                                         .beta = buffers.input(kBias, in.beta),
                                         .mean = buffers.input(kDepthwiseBias, in.mean),
                                         .variance = buffers.input(kOrdinary, in.variance),
                                         .dy = buffers.input(kDy, in.dy),
                                         .dgamma = dgamma,
                                         .dbeta = dbeta},
                                .dx = dx,
                                .dkernel = dkernel};
  std::visit([&](const auto& of) { sepconv::normalized_backward(dtype, of, s, args, runner); },
             convolution.of);
  CHECK(buffers.intact());
  return {copied(dx, convolution.inputs()), copied(dkernel, convolution.weights()),
          copied(dgamma, s.channels), copied(dbeta, s.channels)};
}

template <class T>
std::vector<T> absolute(std::vector<T> values) {
  for (T& value : values) value = std::fabs(value);
  return values;
}

// What is wrong with the results, given those of the two apart.
template <class T>
std::string wrong(const Convolution& convolution, DType dtype, const sepconv::BatchNorm& s,
                  const Given<T>& in, const Found<T>& out) {
  std::vector<T> dv(in.v.size());
  Found<T> apart{std::vector<T>(in.x.size()), std::vector<T>(in.kernel.size()),
                 std::vector<T>(in.gamma.size()), std::vector<T>(in.beta.size())};
  sepconv::batch_norm_backward(dtype, s,
                               {.x = in.v.data(),
                                .gamma = in.gamma.data(),
                                .beta = in.beta.data(),
                                .mean = in.mean.data(),
                                .variance = in.variance.data(),
                                .dy = in.dy.data(),
                                .dx = dv.data(),
                                .dgamma = apart.dgamma.data(),
                                .dbeta = apart.dbeta.data()},
                               sepconv::pool());
  convolution.backward(dtype, in.x.data(), in.kernel.data(), dv.data(), apart.dx.data(),
                       apart.dkernel.data());
  std::string text;
  if (!out.dx.empty() && out.dx != apart.dx) text += "dx ";
  if (!same_numbers(out.dgamma, apart.dgamma)) text += "dgamma ";
  if (!same_numbers(out.dbeta, apart.dbeta)) text += "dbeta ";
  // The sum of what a kernel's gradient is the sum of, without signs.
  std::vector<T> sizes(in.kernel.size()), unused(in.x.size());
  convolution.backward(dtype, absolute(in.x).data(), in.kernel.data(), absolute(dv).data(),
                       unused.data(), sizes.data());
  for (size_t i = 0; i < out.dkernel.size(); ++i)
    if (!(std::fabs(out.dkernel[i] - apart.dkernel[i]) <=
          100 * std::numeric_limits<T>::epsilon() * sizes[i])) {
      text += "dkernel ";
      break;
    }
  return text;
}

template <class T>
void check_one(const Convolution& convolution, DType dtype, sepconv::Activation activation,
               bool for_x, bool for_kernel, uint32_t seed, Buffers& buffers,
               EngineThreads& engine) {
  const sepconv::BatchNorm s = convolution.normalization(activation);
  sepconv::set_num_threads(3);
  const Given<T> in = make<T>(convolution, dtype, s, seed);
  const auto again = [&](sepconv::Runner& runner) {
    return run(convolution, dtype, s, in, for_x, for_kernel, runner, buffers);
  };
  const Found<T> first = again(sepconv::pool());
  std::string why = wrong(convolution, dtype, s, in, first);
  buffers.turn();
  ReverseRunner reverse;
  if (!(again(reverse) == first)) why += "other bits in reverse ";
  sepconv::ExternalRunner external = engine.runner(3);
  if (!(again(external) == first)) why += "other bits on an engine's threads ";
  sepconv::set_num_threads(1);
  if (!(again(sepconv::pool()) == first)) why += "other bits on one thread ";
  if (!CHECK(why.empty()))
    std::fprintf(stderr, "  %sof %s convolution, rows,channels=%ld,%ld activation=%d seed=%u\n",
                 why.c_str(), convolution.of.index() == 0 ? "a depthwise" : "a 1x1",
                 static_cast<long>(s.outer), static_cast<long>(s.channels),
                 static_cast<int>(activation), seed);
}

Convolution random_convolution(std::mt19937& random) {
  const auto from = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  if (from(0, 1) == 0) {
    Problem p{};
    do p = random_problem(static_cast<uint32_t>(random()));
    while (p.g.channels_first);
    return {p.g};
  }
  // Many pixels of few channels, which go through together, or few of many.
  const bool many = from(0, 2) != 0;
  const int64_t images = from(0, 9) == 0 ? 0 : from(1, 3);
  const int64_t channels = from(1, many ? 20 : 300), filters = from(1, many ? 20 : 300);
  const int64_t most = kMostElements / std::max<int64_t>(1, images * std::max(channels, filters));
  return {Pointwise{images, many ? from(most / 2, most) : from(1, std::min<int64_t>(most, 300)),
                    channels, filters, false}};
}

// So large that they go through in several parts. The buffers that guard others hold less.
void check_parts() {
  const int64_t x[4] = {5, 41, 40, 96}, kernel[4] = {3, 3, 96, 1};
  const Geometry g = sepconv::resolve({1, 1, 1, 1, 1, 0, 0, 0, 0, 0}, x, kernel);
  const Convolution convolution{g};
  const sepconv::BatchNorm s = convolution.normalization(sepconv::Activation::relu6);
  const Given<float> in = make<float>(convolution, DType::f32, s, 1);
  Found<float> out{std::vector<float>(in.x.size()), std::vector<float>(in.kernel.size()),
                   std::vector<float>(in.gamma.size()), std::vector<float>(in.beta.size())};
  const NormalizedBackward args{.x = in.x.data(),
                                .kernel = in.kernel.data(),
                                .norm = {.x = in.v.data(),
                                         .gamma = in.gamma.data(),
                                         .beta = in.beta.data(),
                                         .mean = in.mean.data(),
                                         .variance = in.variance.data(),
                                         .dy = in.dy.data(),
                                         .dgamma = out.dgamma.data(),
                                         .dbeta = out.dbeta.data()},
                                .dx = out.dx.data(),
                                .dkernel = out.dkernel.data()};
  sepconv::set_num_threads(3);
  sepconv::normalized_backward(DType::f32, g, s, args, sepconv::pool());
  CHECK(wrong(convolution, DType::f32, s, in, out).empty());
}

void check_refusals() {
  const Pointwise p{1, 4, 3, 2, false};
  const auto call = [&](DType dtype, const Pointwise& of, const sepconv::BatchNorm& s) {
    sepconv::normalized_backward(dtype, of, s, {}, sepconv::pool());
  };
  CHECK_THROWS(call(DType::bf16, p, {4, 2, 1, 1e-3}), std::invalid_argument, "float32 or float64");
  CHECK_THROWS(call(DType::f32, p, {4, 3, 1, 1e-3}), std::invalid_argument, "not of the");
  CHECK_THROWS(call(DType::f32, p, {5, 2, 1, 1e-3}), std::invalid_argument, "not of the");
  CHECK_THROWS(call(DType::f32, {1, 4, 3, 2, true}, {4, 2, 1, 1e-3}), std::invalid_argument,
               "must be the last");
}

}  // namespace

void check_normalized(int problems) {
  Buffers buffers;
  EngineThreads engine(2);
  std::mt19937 random(11);
  for (int i = 0; i < problems; ++i) {
    const Convolution convolution = random_convolution(random);
    const auto activation = static_cast<sepconv::Activation>(random() % 5);
    const bool for_x = random() % 5 != 0, for_kernel = random() % 5 != 0;
    const auto seed = static_cast<uint32_t>(10 * i);
    if (i % 3 == 2)
      check_one<double>(convolution, DType::f64, activation, for_x, for_kernel, seed, buffers,
                        engine);
    else
      check_one<float>(convolution, DType::f32, activation, for_x, for_kernel, seed, buffers,
                       engine);
  }
  check_parts();
  check_refusals();
}

}  // namespace test
