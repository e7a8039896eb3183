// Random convolutions, 1x1 products and geometries against plain loops.
#include <cstdio>

#include "check.h"
#include "run.h"
#include "runners.h"
#include "sections.h"

namespace test {
namespace {

template <class T>
void check_problem(const Problem& p, Buffers& buffers, EngineThreads& engine) {
  const Inputs<T> in = make_inputs<T>(p);
  std::string why;
  sepconv::set_num_threads(3);
  const Results<T> first = run(p, in, sepconv::pool(), buffers, &why);
  why += wrong(p, in, first);
  buffers.turn();
  ReverseRunner reverse;
  const bool reverse_same = run(p, in, reverse, buffers, &why).same_bits(first);
  sepconv::ExternalRunner external = engine.runner(3);
  const bool external_same = run(p, in, external, buffers, &why).same_bits(first);
  sepconv::set_num_threads(8);
  const bool more_same = run(p, in, sepconv::pool(), buffers, &why).same_bits(first);
  Results<T> prepared = first;
  prepared.y = run_prepared(p, in, sepconv::pool(), buffers, &why);
  const bool prepared_same = prepared.same_bits(first);
  // NaN's bits are the processor's business.
  const bool finite = p.numbers == Numbers::ordinary || p.numbers == Numbers::denormal;
  if (finite && !(reverse_same && external_same && more_same && prepared_same))
    why += "other bits ";
  if (!CHECK(why.empty())) std::fprintf(stderr, "  %sof %s\n", why.c_str(), text_of(p).c_str());
}

}  // namespace

void check_values(int problems) {
  Buffers buffers;
  EngineThreads engine(2);
  for (int i = 0; i < problems; ++i) {
    Problem p = random_problem(static_cast<uint32_t>(i));
    if (p.selecting) {  // in either layout, and whatever was drawn for between the steps
      p.ordinary = true;
      p.depthwise_bias = false;
      p.depthwise_activation = sepconv::Activation::none;
    }
    with_type(p.dtype, [&](auto zero) { check_problem<decltype(zero)>(p, buffers, engine); });
  }
}

namespace {

// All numbers of a half type there and back, by a convolution that changes nothing.
template <class T>
void check_identity(sepconv::DType dtype) {
  const int64_t count = 1 << 16, x_shape[4] = {1, 256, 256, 1}, kernel_shape[4] = {1, 1, 1, 1};
  const sepconv::Geometry g =
      sepconv::resolve({1, 1, 1, 1, 0, 0, 0, 0, 0, 0}, x_shape, kernel_shape);
  std::vector<T> x(static_cast<size_t>(count)), y(x.size());
  for (int64_t i = 0; i < count; ++i) x[static_cast<size_t>(i)].bits = static_cast<uint16_t>(i);
  const T one = 1.0;
  sepconv::forward(dtype, g, {.x = x.data(), .depthwise_kernel = &one, .y = y.data()},
                   sepconv::pool());
  int64_t wrong = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double in = x[i], out = y[i];  // a sum of -0 and nothing is 0
    wrong += std::isnan(in) ? !std::isnan(out) : in != out;
  }
  CHECK(wrong == 0);
}

}  // namespace

// Batches of many images of half types.
void check_halves() {
  check_identity<BFloat16>(sepconv::DType::bf16);
  check_identity<Float16>(sepconv::DType::f16);
  Buffers buffers;
  EngineThreads engine(2);
  for (uint32_t i = 0; i < 8; ++i) {
    Problem p{};
    const bool first = i % 2;
    const int64_t x[4] = {40, first ? 60 : 10, 10, first ? 10 : 60}, kernel[4] = {3, 3, 60, 1};
    p.g = sepconv::resolve({1, 1, 1, 1, 0, 0, 0, 0, 0, first}, x, kernel);
    p.dtype = i / 2 % 2 ? sepconv::DType::bf16 : sepconv::DType::f16;
    p.separable = i / 4;
    p.filters = p.separable ? 16 : 0;
    p.bias = p.want_dx = p.want_ddepthwise = p.want_dbias = true;
    p.want_dpointwise = p.residual = p.separable;
    p.seed = i;
    with_type(p.dtype, [&](auto zero) { check_problem<decltype(zero)>(p, buffers, engine); });
  }
}

// So many channels that pixels lie a multiple of 2 KiB apart, where small kernels see a copy of
// them.
void check_conflicts(int problems) {
  Buffers buffers;
  EngineThreads engine(2);
  for (int i = 0; i < problems; ++i) {
    const Problem p = conflicting_problem(static_cast<uint32_t>(i));
    with_type(p.dtype, [&](auto zero) { check_problem<decltype(zero)>(p, buffers, engine); });
  }
}

// Small planes of many channels that come first.
void check_turned(int problems) {
  Buffers buffers;
  EngineThreads engine(2);
  for (int i = 0; i < problems; ++i) {
    const Problem p = turned_problem(static_cast<uint32_t>(i));
    with_type(p.dtype, [&](auto zero) { check_problem<decltype(zero)>(p, buffers, engine); });
  }
}

namespace {

// Of a packed kernel: a residual of -0 changes no number, but it takes a product the longer way.
template <class T>
void check_ways(const Product& product, const Inputs<T>& in) {
  const Problem& p = product.problem;
  const sepconv::Pointwise& s = product.shape;
  std::vector<char> packed(static_cast<size_t>(
      sepconv::packed_kernel_bytes(p.dtype, s.channels_first, s.channels, s.filters)));
  sepconv::pack_pointwise_kernel(p.dtype, s.channels_first, s.channels, s.filters,
                                 in.pointwise.data(), packed.data());
  const std::vector<T> zeros(static_cast<size_t>(p.y_elements()), T(-0.0));
  const auto compute = [&](const T* residual) {
    Results<T> r;
    r.y.resize(zeros.size());
    sepconv::pointwise_forward(p.dtype, s,
                               {.x = in.x.data(),
                                .bias = p.bias ? in.bias.data() : nullptr,
                                .residual = residual,
                                .y = r.y.data(),
                                .activation = p.activation,
                                .packed_kernel = packed.data()},
                               sepconv::pool());
    return r;
  };
  if (!CHECK(compute(zeros.data()).same_bits(compute(nullptr))))
    std::fprintf(stderr, "  of a residual of zeros, %s\n", text_of(p).c_str());
}

template <class T>
void check_product(const Product& product, Buffers& buffers) {
  const Problem& p = product.problem;
  const Inputs<T> in = product_inputs<T>(p);
  std::string why;
  const Results<T> r = run_product(product, in, sepconv::pool(), buffers, &why);
  const Expected e = expected_results(p, in, true);
  const auto pixels = static_cast<double>(product.shape.images * product.shape.pixels);
  bool right = near(r.y.data(), e.y, static_cast<double>(product.shape.channels));
  if (p.want_dx)
    right = near(r.dx.data(), e.dx, static_cast<double>(product.shape.filters)) && right;
  if (p.want_dpointwise) right = near(r.dpointwise.data(), e.dpointwise, pixels) && right;
  if (p.want_dbias) right = near(r.dbias.data(), e.dbias, pixels) && right;
  if (!CHECK(right && why.empty()))
    std::fprintf(stderr, "  %sof the product %s\n", why.c_str(), text_of(p).c_str());
  check_ways(product, in);
}

}  // namespace

void check_pointwise(int problems) {
  Buffers buffers;
  for (int i = 0; i < problems; ++i) {
    const Product product = random_product(static_cast<uint32_t>(i));
    buffers.turn();
    with_type(product.problem.dtype,
              [&](auto zero) { check_product<decltype(zero)>(product, buffers); });
  }
}

void check_geometry() {
  const int64_t x[4] = {2, 9, 8, 5}, kernel[4] = {3, 4, 5, 2};
  const auto with = [&](auto&& change) {
    sepconv::Spec spec{1, 1, 1, 1, 0, 0, 0, 0, 0, 0};
    change(spec);
    return sepconv::resolve(spec, x, kernel);
  };
  auto g = with([](auto&) {});
  CHECK(g.n == 2 && g.h == 9 && g.w == 8 && g.c == 5 && g.kh == 3 && g.kw == 4 && g.m == 2);
  CHECK(g.ho == 7 && g.wo == 5 && g.pt == 0 && g.pl == 0 && !g.channels_first);
  g = with([](auto& s) { s.same = 1, s.stride_h = 2, s.stride_w = 3; });
  CHECK(g.ho == 5 && g.wo == 3 && g.pt == 1 && g.pl == 1);
  g = with([](auto& s) { s.pad_top = 2, s.pad_bottom = 1, s.dilation_h = 4; });
  CHECK(g.ho == 4 && g.pt == 2);
  CHECK_THROWS(with([](auto& s) { s.dilation_h = 5; }), std::invalid_argument,
               "The output would be empty");
  CHECK_THROWS(with([](auto& s) { s.stride_w = 0; }), std::invalid_argument, "must be positive");
  CHECK_THROWS(with([](auto& s) { s.pad_left = -1; }), std::invalid_argument,
               "padding must not be negative");
  CHECK_THROWS(with([](auto& s) { s.dilation_w = INT64_MAX / 2; }), std::invalid_argument,
               "overflows");
  CHECK_THROWS(with([](auto& s) { s.pad_top = INT64_MAX; }), std::invalid_argument, "overflows");
  CHECK_THROWS(with([](auto& s) { s.same = 1, s.dilation_h = int64_t{1} << 60; }),
               std::invalid_argument, "more elements than memory can address");
  const int64_t other[4] = {3, 4, 6, 2};
  const sepconv::Spec plain{1, 1, 1, 1, 0, 0, 0, 0, 0, 0};
  CHECK_THROWS(sepconv::resolve(plain, x, other), std::invalid_argument, "third axis");
  // Whatever the numbers, there is a geometry that memory can hold or a message.
  std::mt19937_64 random(0);
  for (int i = 0; i < 100000; ++i) {
    const auto size = [&] {
      return static_cast<int64_t>(random() >> (random() % 64)) - (random() % 16 == 0);
    };
    const int64_t xs[4] = {size(), size(), size(), size()};
    const bool first = random() % 2;
    const int64_t ks[4] = {size(), size(), random() % 8 ? xs[first ? 1 : 3] : size(), size()};
    const sepconv::Spec s{size(), size(), size(), size(), static_cast<int64_t>(random() % 2),
                          size(), size(), size(), size(), first};
    try {
      const auto r = sepconv::resolve(s, xs, ks);
      if (!(r.ho >= 1 && r.wo >= 1 && r.pt >= 0 && r.pl >= 0)) CHECK(!"an output of no pixels");
    } catch (const std::invalid_argument&) {
    }
  }
  CHECK(true);
}

}  // namespace test
