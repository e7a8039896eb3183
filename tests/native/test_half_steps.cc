// Convolutions of half types: where they are rounded, by numbers whose float32 sums are exact, and
// random shapes beyond those of test_values.cc.
#include <cstdio>
#include <string>

#include "check.h"
#include "run.h"
#include "runners.h"
#include "sections.h"

namespace test {
namespace {

// Whole numbers up to `most` either way, as multiples of `unit`.
template <class T>
std::vector<T> whole_numbers(size_t count, int most, double unit, std::mt19937& random) {
  std::vector<T> values(count);
  for (T& v : values)
    v = T((static_cast<int>(random() % static_cast<unsigned>(2 * most + 1)) - most) * unit);
  return values;
}

// Whether all are what the sums are when they are rounded once.
template <class T>
bool same(const std::vector<T>& values, const Sums& sums) {
  for (size_t i = 0; i < values.size(); ++i)
    if (static_cast<double>(values[i]) != static_cast<double>(T(sums[i].value))) return false;
  return true;
}

struct Shape {
  int64_t n, h, w, c, m, k, stride, dilation, filters;
};

Problem problem_of(const Shape& s, bool first, sepconv::DType dtype) {
  Problem p{};
  const int64_t x[4] = {s.n, first ? s.c : s.h, first ? s.h : s.w, first ? s.w : s.c};
  const int64_t kernel[4] = {s.k, s.k, s.c, s.m};
  p.g = sepconv::resolve({s.stride, s.stride, s.dilation, s.dilation, 1, 0, 0, 0, 0, first}, x,
                         kernel);
  p.dtype = dtype;
  p.separable = s.filters != 0;
  p.filters = s.filters;
  p.bias = p.depthwise_bias = p.residual = p.separable;
  p.depthwise_activation = p.separable ? sepconv::Activation::relu : sepconv::Activation::none;
  p.want_dx = p.want_ddepthwise = p.want_dbias = true;
  p.want_dpointwise = p.separable;
  return p;
}

// Sums of whole numbers below 2^24 are exact in float32 in any order. So every result is that of
// the definition to the last bit, with what is between the steps rounded to the half type, which
// these numbers make it do often. Under every schedule of the forward pass.
template <class T>
void check_rounding_between(const Shape& s, bool first, sepconv::DType dtype, Buffers& buffers) {
  const Problem p = problem_of(s, first, dtype);
  std::mt19937 random(11);
  const auto draw = [&](int64_t count, int most, double unit) {
    return whole_numbers<T>(static_cast<size_t>(count), most, unit, random);
  };
  constexpr double kUnit = 1.0 / 16;
  Inputs<T> in;
  in.x = draw(p.x_elements(), 100, kUnit);
  in.kernel = draw(p.depthwise_elements(), 60, 1);
  in.pointwise = draw(p.pointwise_elements(), 20, 1);
  in.dy = draw(p.y_elements(), 40, kUnit);
  in.bias = draw(p.bias ? p.outputs() : 0, 100, kUnit);
  in.depthwise_bias = draw(p.depthwise_bias ? p.depthwise_channels() : 0, 100, kUnit);
  in.residual = draw(p.residual ? p.y_elements() : 0, 100, kUnit);
  const Expected e = expected_results(p, in);
  std::string why;
  const Results<T> r = run(p, in, sepconv::pool(), buffers, &why);
  if (!same(r.y, e.y)) why += "y ";
  if (!same(r.dx, e.dx)) why += "dx ";
  if (!same(r.dkernel, e.ddepthwise)) why += "ddepthwise ";
  if (!same(r.dpointwise, e.dpointwise)) why += "dpointwise ";
  if (!same(r.dbias, e.dbias)) why += "dbias ";
  Results<T> prepared = r;
  prepared.y = run_prepared(p, in, sepconv::pool(), buffers, &why);
  if (!prepared.same_bits(r)) why += "prepared ";
  for (const auto schedule :
       {sepconv::Schedule::steps, sepconv::Schedule::tiles, sepconv::Schedule::parts}) {
    if (!p.separable) break;
    std::vector<T> y(r.y.size());
    sepconv::Forward call{.x = in.x.data(),
                          .depthwise_kernel = in.kernel.data(),
                          .depthwise_bias = in.depthwise_bias.data(),
                          .pointwise_kernel = in.pointwise.data(),
                          .bias = in.bias.data(),
                          .residual = in.residual.data(),
                          .y = y.data(),
                          .filters = p.filters,
                          .depthwise_activation = p.depthwise_activation};
    call.overrule.schedule = schedule;
    sepconv::forward(dtype, p.g, call, sepconv::pool());
    if (!same(y, e.y)) why += "schedule " + std::to_string(static_cast<int>(schedule)) + " ";
  }
  if (!CHECK(why.empty())) std::fprintf(stderr, "  %sof %s\n", why.c_str(), text_of(p).c_str());
}

// A task has what it widens in scratch that fits a second cache, and the kernel and the cut of
// float32's. Tiles of small kernels read tensors of half types themselves.
void check_plan() {
  constexpr int64_t kMost = 1 << 20;
  const Shape shapes[] = {{1, 112, 112, 32, 1, 3, 1, 1, 64}, {1, 112, 112, 64, 1, 3, 2, 1, 128},
                          {1, 512, 512, 64, 1, 3, 1, 1, 64}, {8, 14, 14, 512, 1, 3, 1, 1, 512},
                          {1, 28, 28, 240, 1, 7, 1, 1, 40},  {1, 7, 7, 1024, 1, 3, 1, 1, 1024}};
  for (const Shape& s : shapes)
    for (const auto pass :
         {sepconv::Pass::forward, sepconv::Pass::input_gradient, sepconv::Pass::kernel_gradient}) {
      const Problem p = problem_of(s, false, sepconv::DType::bf16);
      const auto step = [&](sepconv::DType dtype) {
        return sepconv::make_plan(dtype, p.g, {.pass = pass}, 2).steps[0];
      };
      const sepconv::PlanStep half = step(sepconv::DType::bf16), wide = step(sepconv::DType::f32);
      CHECK(half.kernel == wide.kernel && half.tasks == wide.tasks);
      const bool widens = half.kernel == sepconv::DepthwiseKernel::channelwise;
      if (!CHECK(half.scratch_bytes <= kMost &&
                 (!widens || half.scratch_bytes > wide.scratch_bytes)))
        std::fprintf(stderr, "  %lld bytes of %s\n", static_cast<long long>(half.scratch_bytes),
                     text_of(p).c_str());
    }
}

// A weight that is infinite takes the plain loops; its depthwise results are rounded too.
template <class T>
void check_exact_path(sepconv::DType dtype, Buffers& buffers) {
  for (const bool first : {false, true}) {
    Problem p = problem_of({1, 6, 7, 20, 1, 3, 1, 1, 5}, first, dtype);
    p.numbers = Numbers::nonfinite_weights;
    p.seed = 3;
    const std::string wrong = verdict<T>(p, sepconv::pool(), buffers);
    if (!CHECK(wrong.empty())) std::fprintf(stderr, "  %s\n", wrong.c_str());
  }
}

// Random convolutions, the same bits on any runner.
template <class T>
void check_random(const Problem& p, Buffers& buffers) {
  const Inputs<T> in = make_inputs<T>(p);
  std::string why;
  sepconv::set_num_threads(3);
  const Results<T> r = run(p, in, sepconv::pool(), buffers, &why);
  why += wrong(p, in, r);
  buffers.turn();
  ReverseRunner reverse;
  const bool finite = p.numbers == Numbers::ordinary || p.numbers == Numbers::denormal;
  if (!run(p, in, reverse, buffers, &why).same_bits(r) && finite) why += "reversed ";
  for (const int threads : {1, 2}) {
    sepconv::set_num_threads(threads);
    if (!run(p, in, sepconv::pool(), buffers, &why).same_bits(r) && finite) why += "threads ";
  }
  if (!CHECK(why.empty())) std::fprintf(stderr, "  %sof %s\n", why.c_str(), text_of(p).c_str());
}

}  // namespace

void check_half_steps(int problems) {
  Buffers buffers;
  const Shape shapes[] = {{2, 8, 7, 24, 1, 3, 1, 1, 9},    // tiles of a small kernel, two rows
                          {1, 7, 9, 37, 1, 3, 2, 1, 20},   // stride 2, channels that fill no vector
                          {1, 9, 8, 20, 1, 5, 1, 1, 11},   // a row of taps at a time
                          {1, 9, 9, 24, 1, 5, 2, 1, 6},    //
                          {1, 7, 6, 20, 1, 2, 1, 1, 5},    // tiles forward, but not backward
                          {1, 9, 8, 20, 1, 7, 1, 1, 11},   // a vector of channels at a time
                          {1, 5, 5, 1024, 1, 3, 1, 1, 2},  // pixels that are copied for tiles
                          {1, 8, 8, 17, 2, 3, 1, 2, 6},    // channels repeated
                          {2, 6, 30, 3, 1, 3, 1, 1, 8},    // whole rows
                          {1, 6, 20, 3, 2, 3, 1, 1, 7},    // whole rows of repeated channels
                          {1, 9, 9, 5, 1, 3, 2, 1, 4},     // a channel at a time
                          {1, 5, 5, 130, 1, 7, 1, 1, 3},   // channels widened in parts
                          {1, 4, 250, 40, 1, 7, 1, 1, 6},  // rows widened in pieces
                          {1, 12, 12, 96, 1, 3, 1, 1, 0},  // the depthwise step alone
                          {1, 9, 11, 40, 1, 3, 2, 1, 0},   //
                          {1, 5, 500, 70, 1, 7, 2, 1, 0},  // in pieces of rows, with strides,
                          {1, 4, 600, 33, 1, 4, 1, 3, 0},  // dilation
                          {1, 3, 400, 24, 2, 3, 1, 1, 0}};  // and channels repeated
  for (const Shape& s : shapes)
    for (const bool first : {false, true})
      for (const sepconv::DType dtype : {sepconv::DType::bf16, sepconv::DType::f16})
        with_type(dtype, [&](auto zero) {
          check_rounding_between<decltype(zero)>(s, first, dtype, buffers);
        });
  check_plan();
  check_exact_path<BFloat16>(sepconv::DType::bf16, buffers);
  check_exact_path<Float16>(sepconv::DType::f16, buffers);
  for (int i = 0; i < problems; ++i) {
    Problem p = random_problem(10000 + static_cast<uint32_t>(i));
    p.dtype = i % 2 ? sepconv::DType::bf16 : sepconv::DType::f16;
    with_type(p.dtype, [&](auto zero) { check_random<decltype(zero)>(p, buffers); });
  }
}

}  // namespace test
