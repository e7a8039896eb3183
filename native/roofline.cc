// Times the loops of kernels/roofline.h: threads start together, and the best of many short windows
// of time counts, since other work on a machine can only lower a rate. Windows are as short as an
// operating system's time slices, so that some are undisturbed.
#include "roofline.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "kernels/int8_table.h"
#include "kernels/kernel_table.h"

namespace sepconv {
namespace {

constexpr double kWindowSeconds = 0.004;
constexpr int64_t kStepBytes = 4096;  // a multiple of every unrolled loop's step

// The best window's work per second, summed over threads. burst(thread) does some work and
// returns how much.
template <class F>
double best_rate(int threads, double seconds, F burst) {
  using Clock = std::chrono::steady_clock;
  const int windows = std::max(1, static_cast<int>(seconds / kWindowSeconds));
  const std::chrono::duration<double> window(seconds / windows);
  std::vector<double> rates(static_cast<size_t>(threads) * static_cast<size_t>(windows));
  const auto rate_of = [&](int index, int thread) -> double& {
    return rates[static_cast<size_t>(index) * static_cast<size_t>(threads) +
                 static_cast<size_t>(thread)];
  };
  std::barrier together(threads);
  const auto work = [&](int thread) {
    burst(thread);
    for (int index = 0; index < windows; ++index) {
      together.arrive_and_wait();
      const auto start = Clock::now();
      std::chrono::duration<double> elapsed{};
      int64_t done = 0;
      do {
        done += burst(thread);
        elapsed = Clock::now() - start;
      } while (elapsed < window);
      rate_of(index, thread) = static_cast<double>(done) / elapsed.count();
    }
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  work(0);
  for (std::thread& other : others) other.join();
  double best = 0;
  for (int index = 0; index < windows; ++index) {
    double sum = 0;
    for (int thread = 0; thread < threads; ++thread) sum += rate_of(index, thread);
    best = std::max(best, sum);
  }
  return best;
}

struct Freed {
  void operator()(float* p) const { ::operator delete(p, std::align_val_t{64}); }
};

}  // namespace

double measure_fma(DType dtype, int threads, double seconds) {
  const KernelTable& kernels = kernels_for(dtype);
  return best_rate(threads, seconds, [&](int) {
    double sink = 0;  // whose bits are those of a float32 nought, too
    return kernels.fma_burst(10000, &sink);
  });
}

double measure_int8(int threads, double seconds) {
  return best_rate(threads, seconds, [&](int) {
    int32_t sink = 0;
    return int8_kernels().dot_burst(10000, &sink);
  });
}

double measure_bandwidth(int64_t bytes, int threads, double seconds) {
  const KernelTable& kernels = f32_kernels();
  const int64_t each = std::max(bytes / threads / (2 * kStepBytes), int64_t{1}) * 2 * kStepBytes;
  const int64_t count = each / static_cast<int64_t>(sizeof(float));
  std::vector<std::unique_ptr<float, Freed>> buffers;
  for (int thread = 0; thread < threads; ++thread) {
    buffers.emplace_back(
        static_cast<float*>(::operator new(static_cast<size_t>(each), std::align_val_t{64})));
    std::fill_n(buffers.back().get(), count, 1.0f);
  }
  const double read = best_rate(threads, seconds / 2, [&](int thread) {
    float sink;
    kernels.read_stream(buffers[static_cast<size_t>(thread)].get(), count, &sink);
    return each;
  });
  const double copied = best_rate(threads, seconds / 2, [&](int thread) {
    float* from = buffers[static_cast<size_t>(thread)].get();
    kernels.copy_stream(from, from + count / 2, count / 2);
    return each;
  });
  return std::max(read, copied);
}

}  // namespace sepconv
