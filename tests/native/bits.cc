// Prints a hash of the kernels' results: what must not change when only structure does.
//
//   sepconv_native_bits [effort]     a line a level, kind of problem and number of threads
//
// Problems with NaN or infinities are left out, since a NaN's bits are the processor's business.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "levels.h"
#include "normalization.h"

namespace {

// FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv
class Hash {
 public:
  template <class T>
  void add(const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    for (size_t i = 0; i < values.size() * sizeof(T); ++i)
      value_ = (value_ ^ bytes[i]) * 0x100000001b3;
  }
  template <class T>
  void add(const test::Results<T>& r) {
    add(r.y), add(r.dx), add(r.dkernel), add(r.dpointwise), add(r.dbias);
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

bool finite(const test::Problem& p) {
  return p.numbers == test::Numbers::ordinary || p.numbers == test::Numbers::denormal;
}

using MakeProblem = test::Problem (*)(uint32_t seed);

void add_convolutions(MakeProblem make, int problems, test::Buffers& buffers, Hash& hash) {
  for (int i = 0; i < problems; ++i) {
    const test::Problem p = make(static_cast<uint32_t>(i));
    if (!finite(p)) continue;
    test::with_type(p.dtype, [&](auto zero) {
      using T = decltype(zero);
      const test::Inputs<T> in = test::make_inputs<T>(p);
      std::string why;
      hash.add(test::run(p, in, sepconv::pool(), buffers, &why));
      hash.add(test::run_prepared(p, in, sepconv::pool(), buffers, &why));
      if (!why.empty()) std::abort();
    });
  }
}

void add_products(int problems, test::Buffers& buffers, Hash& hash) {
  for (int i = 0; i < problems; ++i) {
    const test::Product product = test::random_product(static_cast<uint32_t>(i));
    if (!finite(product.problem)) continue;
    test::with_type(product.problem.dtype, [&](auto zero) {
      using T = decltype(zero);
      std::string why;
      const test::Inputs<T> in = test::product_inputs<T>(product.problem);
      hash.add(test::run_product(product, in, sepconv::pool(), buffers, &why));
      if (!why.empty()) std::abort();
    });
  }
}

void add_normalizations(int problems, test::Buffers& buffers, Hash& hash) {
  std::mt19937 random(7);
  for (int i = 0; i < problems; ++i) {
    const test::Sizes z = test::random_sizes(random);
    const auto add = [&](auto zero, sepconv::DType dtype) {
      using T = decltype(zero);
      const auto in = test::random_operands<T>(z, static_cast<uint32_t>(10 * i));
      const auto r = test::run(z, dtype, in, sepconv::pool(), buffers);
      hash.add(r.y), hash.add(r.mean), hash.add(r.variance);
      hash.add(r.dx), hash.add(r.dgamma), hash.add(r.dbeta);
    };
    if (i % 3 == 2)
      add(double{}, sepconv::DType::f64);
    else
      add(float{}, sepconv::DType::f32);
  }
}

// Hashes are of a level, which a process chooses once.
void print_level(const char* level, double effort) {
  setenv("SEPCONV_ISA", level, 1);
  try {
    sepconv::isa_name();
  } catch (const std::invalid_argument&) {
    return;  // it does not run here
  }
  const auto times = [&](int count) { return 1 + static_cast<int>(count * effort); };
  test::Buffers buffers;
  for (int threads = 1; threads <= 3; ++threads) {
    sepconv::set_num_threads(threads);
    const auto print = [&](const char* kind, auto add) {
      Hash hash;
      add(hash);
      std::printf("%s %s %d %016llx\n", level, kind, threads,
                  static_cast<unsigned long long>(hash.value()));
      std::fflush(stdout);
    };
    print("convolutions",
          [&](Hash& hash) { add_convolutions(test::random_problem, times(600), buffers, hash); });
    print("conflicts", [&](Hash& hash) {
      add_convolutions(test::conflicting_problem, times(60), buffers, hash);
    });
    print("products", [&](Hash& hash) { add_products(times(300), buffers, hash); });
    print("normalizations", [&](Hash& hash) { add_normalizations(times(150), buffers, hash); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  const double effort = argc > 1 ? std::atof(argv[1]) : 1;
  for (const char* level : test::kLevels) {
    const pid_t child = fork();
    if (child == 0) {
      print_level(level, effort);
      std::exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
  }
  return 0;
}
