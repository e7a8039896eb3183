// Picks the instruction set once, at the first call, and hands calls on to its kernels.
#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels/kernel_table.h"

namespace sepconv {
namespace {

struct Level {
  const char* name;
  bool runnable;
  const KernelTable& (*f32)();
  const KernelTable& (*f64)();
};

// The best level last.
const Level* levels(int* count) {
#if defined(SEPCONV_X86)
  __builtin_cpu_init();
  static const Level all[] = {
      {"x86-64-v2", __builtin_cpu_supports("sse4.2") != 0, &v2::f32_table, &v2::f64_table},
      {"x86-64-v3", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
       &v3::f32_table, &v3::f64_table},
      {"x86-64-v4",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"),
       &v4::f32_table, &v4::f64_table}};
#elif defined(__aarch64__)
  static const Level all[] = {{"neon", true, &baseline::f32_table, &baseline::f64_table}};
#else
  static const Level all[] = {{"generic", true, &baseline::f32_table, &baseline::f64_table}};
#endif
  *count = sizeof all / sizeof all[0];
  return all;
}

const Level& choose_level() {
  int count;
  const Level* all = levels(&count);
  const char* wanted = std::getenv("SEPCONV_ISA");
  if (wanted != nullptr && *wanted != '\0') {
    std::string runnable;
    for (int i = 0; i < count; ++i) {
      if (!all[i].runnable) continue;
      if (std::string(wanted) == all[i].name) return all[i];
      runnable += (runnable.empty() ? "" : ", ") + std::string(all[i].name);
    }
    throw std::invalid_argument("SEPCONV_ISA must be one of the levels that run here: " + runnable +
                                ". Received: SEPCONV_ISA=" + wanted);
  }
  for (int i = count - 1; i >= 0; --i)
    if (all[i].runnable) return all[i];
  throw std::invalid_argument("sepconv needs a processor with at least the level " +
                              std::string(all[0].name) + ".");
}

const Level& level() {
  static const Level& chosen = choose_level();  // an exception leaves it to be tried again
  return chosen;
}

const KernelTable& table(DType dtype) {
  return dtype == DType::f32 ? level().f32() : level().f64();
}

}  // namespace

void forward(DType dtype, const Geometry& g, const Forward& args, Runner& runner) {
  table(dtype).forward(g, args, runner);
}

void backward(DType dtype, const Geometry& g, const Backward& args, Runner& runner) {
  table(dtype).backward(g, args, runner);
}

void pointwise_forward(DType dtype, const Pointwise& p, const PointwiseForward& args,
                       Runner& runner) {
  table(dtype).pointwise_forward(p, args, runner);
}

void pointwise_backward(DType dtype, const Pointwise& p, const void* x, const void* kernel,
                        const void* dy, void* dx, void* dkernel, void* dbias, Runner& runner) {
  table(dtype).pointwise_backward(p, x, kernel, dy, dx, dkernel, dbias, runner);
}

const char* isa_name() { return level().name; }

const KernelTable& f32_kernels() { return level().f32(); }

}  // namespace sepconv
