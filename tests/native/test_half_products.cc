// The 1x1 product of half types: rounding, sizes at which a task converts its rows in parts or a
// gradient has several partial sums, prepared weights, the same bits on any runner; and the
// instruction for pairs of bfloat16 against its emulation.
#include <cstdio>
#include <cstring>
#include <string>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "check.h"
#include "pair_add.h"
#include "run.h"
#include "runners.h"
#include "sections.h"

namespace test {
namespace {

struct Sizes {
  int64_t n, h, w, channels, filters;
};

Product product_of(const Sizes& s, bool first, sepconv::DType dtype, uint32_t seed) {
  Problem p{};
  const int64_t x[4] = {s.n, first ? s.channels : s.h, first ? s.h : s.w, first ? s.w : s.channels};
  const int64_t kernel[4] = {1, 1, s.channels, 1};
  p.g = sepconv::resolve({1, 1, 1, 1, 0, 0, 0, 0, 0, first}, x, kernel);
  p.dtype = dtype;
  p.separable = true;
  p.filters = s.filters;
  p.bias = seed % 2 == 0;
  p.residual = seed % 3 != 0;
  p.activation = static_cast<sepconv::Activation>(seed % 5);
  p.want_dx = p.want_dpointwise = p.want_dbias = true;
  p.seed = seed;
  return {p, {s.n, s.h * s.w, s.channels, s.filters, first}};
}

// y of the product whose weights were prepared.
template <class T>
std::vector<T> prepared_y(const Product& product, const Inputs<T>& in) {
  const Problem& p = product.problem;
  sepconv::Forward args{};
  args.pointwise_kernel = in.pointwise.data();
  args.bias = p.bias ? in.bias.data() : nullptr;
  args.filters = p.filters;
  args.activation = p.activation;
  const sepconv::PreparedConvolution prepared({p.dtype, p.g.channels_first, 1, p.g.c, 1, args});
  std::vector<T> y(static_cast<size_t>(p.y_elements()));
  prepared.forward(p.g, in.x.data(), p.residual ? in.residual.data() : nullptr, y.data(),
                   sepconv::pool());
  return y;
}

template <class T>
void check_product(const Product& product, Buffers& buffers) {
  const Problem& p = product.problem;
  const Inputs<T> in = product_inputs<T>(p);
  std::string why;
  sepconv::set_num_threads(3);
  const Results<T> r = run_product(product, in, sepconv::pool(), buffers, &why);
  const Expected e = expected_results(p, in, true);
  const auto pixels = static_cast<double>(product.shape.images * product.shape.pixels);
  if (!near(r.y.data(), e.y, static_cast<double>(product.shape.channels))) why += "y ";
  if (!near(r.dx.data(), e.dx, static_cast<double>(product.shape.filters))) why += "dx ";
  if (!near(r.dpointwise.data(), e.dpointwise, pixels)) why += "dpointwise ";
  if (!near(r.dbias.data(), e.dbias, pixels)) why += "dbias ";
  buffers.turn();
  ReverseRunner reverse;
  if (!run_product(product, in, reverse, buffers, &why).same_bits(r)) why += "reversed ";
  sepconv::set_num_threads(8);
  if (!run_product(product, in, sepconv::pool(), buffers, &why).same_bits(r)) why += "threads ";
  Results<T> prepared = r;
  prepared.y = prepared_y(product, in);
  if (!prepared.same_bits(r)) why += "prepared ";
  if (!CHECK(why.empty()))
    std::fprintf(stderr, "  %sof the product %s\n", why.c_str(), text_of(p).c_str());
}

// The flags by which denormal numbers are zeros, for a while.
class Flushed {
 public:
  Flushed() : before_(mode()) { set_mode(before_ | kFlags); }
  ~Flushed() { set_mode(before_); }

 private:
#if defined(__x86_64__)
  using Mode = unsigned;
  static constexpr Mode kFlags = 0x8040;
  static Mode mode() { return _mm_getcsr(); }
  static void set_mode(Mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
  using Mode = uint64_t;
  static constexpr Mode kFlags = 1 << 24;
  static Mode mode() {
    Mode mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set_mode(Mode mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
  using Mode = int;
  static constexpr Mode kFlags = 0;
  static Mode mode() { return 0; }
  static void set_mode(Mode) {}
#endif
  const Mode before_;
};

// Sums of two terms, of which float32 has more digits than the half type: all are rounded once, to
// the nearest, ties to even, whatever the thread's mode is. `lower` is what the second counts.
template <class T>
void check_rounding(sepconv::DType dtype, double lower, bool first) {
  constexpr int64_t kPixels = 1 << 14;
  std::mt19937 random(7);
  std::vector<T> x(2 * kPixels), y(kPixels);
  const T weights[2] = {T(1), T(lower)};
  const auto at = [&](int64_t pixel, int64_t channel) {
    return static_cast<size_t>(first ? channel * kPixels + pixel : 2 * pixel + channel);
  };
  for (int64_t i = 0; i < kPixels; ++i) {
    const double scale = std::ldexp(1.0, static_cast<int>(random() % 24) - 20);
    // Few bits in the second, so that many sums are ties.
    x[at(i, 0)] = T((static_cast<double>(random() % 2048) - 1024) / 512 * scale);
    x[at(i, 1)] = T((static_cast<double>(random() % 8) - 4) * scale);
  }
  ReverseRunner here;
  {
    const Flushed flushed;
    sepconv::pointwise_forward(dtype, {1, kPixels, 2, 1, first},
                               {.x = x.data(), .pointwise_kernel = weights, .y = y.data()}, here);
  }
  int64_t wrong = 0;
  for (int64_t i = 0; i < kPixels; ++i) {
    const double sum = static_cast<double>(x[at(i, 0)]) +
                       static_cast<double>(x[at(i, 1)]) * static_cast<double>(weights[1]);
    const T want = T(static_cast<double>(static_cast<float>(sum)));
    wrong += want != y[static_cast<size_t>(i)];
  }
  CHECK(wrong == 0);
}

// Every number of a half type, multiplied by 1; to one of 17 filters of a pixel.
template <class T>
void check_identity(sepconv::DType dtype, bool small_are_zeros) {
  constexpr int64_t kFilters = 17, kPixels = 1 << 16;
  std::vector<T> x(kPixels), weights(kFilters, T(1)), y(kPixels * kFilters);
  for (size_t i = 0; i < x.size(); ++i) x[i].bits = static_cast<uint16_t>(i);
  sepconv::pointwise_forward(dtype, {1, kPixels, 1, kFilters, false},
                             {.x = x.data(), .pointwise_kernel = weights.data(), .y = y.data()},
                             sepconv::pool());
  int64_t wrong = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    double in = x[i / kFilters];
    const double out = y[i];
    if (small_are_zeros && std::fabs(in) < static_cast<double>(Least<T>::normal())) in = 0;
    wrong += std::isnan(in) ? !std::isnan(out) : in != out;
  }
  CHECK(wrong == 0);
}

uint32_t pair(double first, double second) {
  return static_cast<uint32_t>(BFloat16(second).bits) << 16 | BFloat16(first).bits;
}

// What the emulation computes, by examples: the second product is added first, and numbers too
// small to be normal are zeros.
void check_emulation(const PairAdd& emulated) {
  const auto sum_of = [&](double a0, double a1, double b0, double b1, float sum) {
    std::vector<uint32_t> b(static_cast<size_t>(emulated.lanes), pair(b0, b1));
    std::vector<float> sums(b.size(), sum);
    emulated.add(pair(a0, a1), b.data(), sums.data());
    return sums.back();
  };
  const double large = 0x1p24, tiny = 0x1p-130;
  CHECK(sum_of(1, -large, 1, 1, 0x1p24F) == 1);
  CHECK(sum_of(-large, 1, 1, 1, 0x1p24F) == 0);
  CHECK(sum_of(tiny, 0, 0x1p100, 0, 1) == 1);
  CHECK(sum_of(tiny, 0, 0x1p126, 0, 0) == 0);
  CHECK(sum_of(0x1p-70, 0, 0x1p-70, 0, 0) == 0);
  CHECK(sum_of(0, 0, 1, 1, 0x1p-127F) == 0);
  CHECK(std::isnan(sum_of(std::numeric_limits<double>::infinity(), 0, 0, 0, 0)));
  CHECK(sum_of(0x1p100, 0, -0x1p100, 0, 0) == -std::numeric_limits<float>::infinity());
}

// Both on the same numbers: processors may round the sum of two products in their own way.
void check_instruction(const PairAdd& real, const PairAdd& emulated) {
  std::mt19937 random(5);
  const auto lanes = static_cast<size_t>(real.lanes);
  const auto drawn = [&] { return static_cast<double>(random() % 4096) / 2048 - 1; };
  int64_t wrong = 0, differ = 0;
  for (int round = 0; round < 1000; ++round) {
    std::vector<uint32_t> b(lanes);
    std::vector<float> sums(lanes);
    for (size_t i = 0; i < lanes; ++i) {
      b[i] = pair(drawn(), drawn());
      sums[i] = static_cast<float>(drawn());
    }
    std::vector<float> other = sums;
    const uint32_t a = pair(drawn(), drawn());
    real.add(a, b.data(), sums.data());
    emulated.add(a, b.data(), other.data());
    for (size_t i = 0; i < lanes; ++i) {
      wrong += std::fabs(sums[i] - other[i]) > 4 * std::numeric_limits<float>::epsilon();
      differ += sums[i] != other[i];
    }
  }
  CHECK(wrong == 0);
  std::printf("the instruction for pairs of bfloat16: %lld of %lld sums as emulated\n",
              static_cast<long long>(1000 * static_cast<int64_t>(lanes) - differ),
              static_cast<long long>(1000 * lanes));
}

void check_pairs(const std::string& level) {
#if defined(SEPCONV_X86)
  if (level == "x86-64-v2-emulated") check_emulation(sepconv::v2_emulated::pair_add());
  if (level == "x86-64-v4-emulated") check_emulation(sepconv::v4_emulated::pair_add());
  if (level == "x86-64-v4-bf16")
    check_instruction(sepconv::v4_bf16::pair_add(), sepconv::v4_emulated::pair_add());
#elif defined(__aarch64__)
  if (level == "neon-emulated") check_emulation(sepconv::neon_emulated::pair_add());
  if (level == "neon-bf16")
    check_instruction(sepconv::neon_bf16::pair_add(), sepconv::neon_emulated::pair_add());
#endif
}

// Where rows are converted, a task has memory for them; pairs are read in place. Packed weights are
// as large as what they are multiplied as.
void check_plan(bool in_pairs) {
  const sepconv::Pointwise product{1, 4096, 64, 64, false};
  const auto scratch = [&](sepconv::DType dtype) {
    const sepconv::Plan plan = sepconv::make_plan(dtype, product, sepconv::Pass::forward, false, 1);
    return plan.steps[0].scratch_bytes;
  };
  CHECK(scratch(sepconv::DType::f32) == 0);
  CHECK(scratch(sepconv::DType::f16) > 0);
  CHECK((scratch(sepconv::DType::bf16) == 0) == in_pairs);
  const auto bytes = [](sepconv::DType dtype) {
    return sepconv::packed_kernel_bytes(dtype, false, 64, 64);
  };
  CHECK(bytes(sepconv::DType::f16) == 64 * 64 * 4);
  CHECK(bytes(sepconv::DType::bf16) == 64 * 64 * (in_pairs ? 2 : 4));
}

}  // namespace

void check_half_products() {
  const std::string level = sepconv::isa_name();
  const bool in_pairs = level.ends_with("-emulated") || level.ends_with("-bf16");
  check_pairs(level);
  check_plan(in_pairs);
  for (const bool first : {false, true}) {
    check_rounding<BFloat16>(sepconv::DType::bf16, 0x1p-10, first);
    check_rounding<Float16>(sepconv::DType::f16, 0x1p-13, first);
  }
  check_identity<BFloat16>(sepconv::DType::bf16, in_pairs);
  check_identity<Float16>(sepconv::DType::f16, false);
  const Sizes sizes[] = {{1, 10, 12, 1000, 40},  // rows that are converted in parts
                         {2, 60, 50, 16, 20},    // partial sums of a gradient
                         {3, 7, 9, 33, 65},      // odd sizes, more than a tile of columns
                         {1, 1, 1, 1, 1},        //
                         {1, 3, 4, 512, 130}};   // few pixels, whose outputs are cut
  Buffers buffers;
  uint32_t seed = 0;
  for (const Sizes& s : sizes)
    for (const bool first : {false, true})
      for (const sepconv::DType dtype : {sepconv::DType::bf16, sepconv::DType::f16})
        with_type(dtype, [&](auto zero) {
          check_product<decltype(zero)>(product_of(s, first, dtype, seed++), buffers);
        });
}

}  // namespace test
