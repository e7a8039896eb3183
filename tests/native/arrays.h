// Runs an operation between convolutions on guarded buffers and on every runner.
#pragma once
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "../../native/dispatch.h"
#include "check.h"
#include "run.h"
#include "runners.h"

namespace test {

template <class T>
inline constexpr sepconv::DType kDType = sizeof(T) == 4 ? sepconv::DType::f32 : sepconv::DType::f64;

class Random {
 public:
  explicit Random(uint32_t seed) : random_(seed) {}
  int64_t from(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  bool one_in(int64_t count) { return from(1, count) == 1; }
  uint32_t seed() { return static_cast<uint32_t>(random_()); }
  template <class T>
  T of(std::initializer_list<T> values) {
    return values.begin()[from(0, static_cast<int64_t>(values.size()) - 1)];
  }
  // A size: small ones most often, at most `most`.
  int64_t size(int64_t most) {
    const int64_t limit = std::min(most, of<int64_t>({3, 9, 40, 300, 5000, 1 << 17}));
    return from(1, std::max<int64_t>(limit, 1));
  }

 private:
  std::mt19937 random_;
};

template <class T>
std::vector<T> some_values(Random& random, int64_t count) {
  return random_values<T>(count, random.seed(),
                          random.one_in(4) ? Special::nonfinite : Special::none);
}

// Numbers are the same where their bits are, or where both are NaN.
template <class T>
bool same_numbers(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0 && !(std::isnan(a[i]) && std::isnan(b[i])))
      return false;
  return true;
}

// Whether a result is within `room` of what is expected. Infinite where that is more than T has.
template <class T>
bool is_near(T received, double expected, double room) {
  if (std::isnan(expected)) return std::isnan(received);
  if (std::isinf(static_cast<T>(expected))) return received == static_cast<T>(expected);
  return std::fabs(static_cast<double>(received) - expected) <= room;
}

template <class T>
inline constexpr double kUnit = static_cast<double>(std::numeric_limits<T>::epsilon());

class Arrays {
 public:
  // An operation's call, given its inputs in order and its output.
  template <class T>
  using Call = std::function<void(const std::vector<const T*>&, T* y, sepconv::Runner&)>;

  // The `count` results of a call, which must be the same on every runner. `in_place`: the input
  // that is the output too, or -1; one that is empty is null.
  template <class T>
  std::vector<T> run(const char* what, const std::vector<std::vector<T>>& inputs, int64_t count,
                     int in_place, const Call<T>& call) {
    sepconv::set_num_threads(3);
    const std::vector<T> first = run_once(inputs, count, in_place, call, sepconv::pool());
    buffers_.turn();
    ReverseRunner reverse;
    sepconv::ExternalRunner external = engine_.runner(3);
    bool same = same_numbers(run_once(inputs, count, in_place, call, reverse), first);
    same = same_numbers(run_once(inputs, count, in_place, call, external), first) && same;
    sepconv::set_num_threads(1);
    same = same_numbers(run_once(inputs, count, in_place, call, sepconv::pool()), first) && same;
    if (in_place >= 0)
      same = same_numbers(run_once(inputs, count, -1, call, sepconv::pool()), first) && same;
    if (!CHECK(same)) std::fprintf(stderr, "  other bits of %s\n", what);
    return first;
  }

 private:
  template <class T>
  std::vector<T> run_once(const std::vector<std::vector<T>>& inputs, int64_t count, int in_place,
                          const Call<T>& call, sepconv::Runner& runner) {
    constexpr Slot slots[] = {kX, kKernel, kPointwise};
    std::vector<const T*> given;
    T* y = nullptr;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (static_cast<int>(i) == in_place) {
        y = buffers_.output<T>(kY, count);
        std::copy(inputs[i].begin(), inputs[i].end(), y);
        given.push_back(y);
      } else {
        given.push_back(inputs[i].empty() ? nullptr : buffers_.input(slots[i], inputs[i]));
      }
    }
    if (y == nullptr) y = buffers_.output<T>(kY, count);
    call(given, y, runner);
    CHECK(buffers_.intact());
    return copied(y, count);
  }

  Buffers buffers_;
  EngineThreads engine_{2};
};

// Calls f(T) for float and for double in turn.
template <class F>
void with_real(int64_t index, F&& f) {
  index % 3 == 2 ? f(double{}) : f(float{});
}

}  // namespace test
