// Programs: the same bits with and without chains, on any number of threads, for many callers at
// once; and what a description must be. What steps compute is tested from Python, against
// src/sepconv/program/reference.py.
#include "../../native/program/program.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "../../native/dispatch.h"
#include "../../native/program/group.h"
#include "check.h"
#include "half.h"
#include "problem.h"
#include "sections.h"

namespace test {
namespace {

using namespace sepconv::program;

// A network that is being written down, with tensors of random numbers.
class Draft {
 public:
  explicit Draft(uint32_t seed) : random_(seed) {}

  int add(const std::string& operation, std::vector<int> inputs, std::vector<int64_t> ints,
          std::vector<double> floats = {}, std::vector<const TensorView*> tensors = {}) {
    network.steps.push_back({operation, operation + std::to_string(network.steps.size()),
                             std::move(inputs), std::move(ints), std::move(floats),
                             std::move(tensors)});
    return static_cast<int>(network.inputs.size() + network.steps.size()) - 1;
  }
  // Of weights where no dtype is given.
  const TensorView* tensor(Shape shape, double size) { return tensor(shape, size, weights); }
  const TensorView* tensor(Shape shape, double size, sepconv::DType dtype) {
    numbers_.push_back(std::vector<float>(static_cast<size_t>(shape.elements())));
    std::vector<float>& numbers = numbers_.back();
    for (size_t i = 0; i < numbers.size(); ++i) {
      const float number = static_cast<float>((below(2001) - 1000) * 1e-3 * size);
      const BFloat16 half(static_cast<double>(number));
      if (dtype == sepconv::DType::bf16)
        std::memcpy(reinterpret_cast<char*>(numbers.data()) + 2 * i, &half.bits, 2);
      else
        numbers[i] = number;
    }
    views_.push_back(std::make_unique<TensorView>(TensorView{shape, numbers.data(), dtype}));
    return views_.back().get();
  }
  int64_t below(int64_t count) {
    return static_cast<int64_t>(random_() % static_cast<uint32_t>(count));
  }
  // For an input: from -1 to 1.
  std::vector<float> numbers(const Shape& shape) {
    std::vector<float> x(static_cast<size_t>(shape.elements()));
    for (float& number : x) number = static_cast<float>(below(2001) - 1000) * 1e-3f;
    return x;
  }

  // A value of uint8.
  int bytes() { return add("constant", {}, {}, {}, {tensor({3}, 1, sepconv::DType::u8)}); }

  // A convolution: of 0 taps a 1x1 one, depthwise and 1x1 where `separable`.
  int convolution(int x, int64_t channels, int64_t filters, int64_t taps, int64_t stride,
                  bool separable, bool same, int residual = -1) {
    std::vector<const TensorView*> tensors(4, nullptr);
    if (taps > 0) {
      tensors[0] = tensor({taps, taps, channels, 1}, 0.5);
      if (separable && below(2)) tensors[1] = tensor({channels}, 0.5);
    }
    if (taps == 0 || separable) tensors[2] = tensor({1, 1, channels, filters}, 0.3);
    if (below(2)) tensors[3] = tensor({filters}, 0.5);
    const int64_t depthwise_activation = taps > 0 && separable ? below(5) : 0;
    std::vector<int> inputs{x};
    if (residual >= 0) inputs.push_back(residual);
    // Pads of which some make rows of outputs that see nothing else.
    const auto pad = [&] { return same ? 0 : taps / 2 + below(taps / 2 + 2); };
    const int64_t top = pad(), bottom = pad(), left = pad(), right = pad();
    return add("convolution", inputs,
               {10, stride, stride, 1, 1, same, top, bottom, left, right, 0, depthwise_activation,
                below(5)},
               {}, tensors);
  }

  NetworkDescription network{sepconv::DType::f32, {}, {}, {}};
  sepconv::DType weights = sepconv::DType::f32;

 private:
  std::minstd_rand random_;
  std::vector<std::vector<float>> numbers_;
  std::vector<std::unique_ptr<TensorView>> views_;
};

// Convolutions, activations, residuals and squeeze-and-excite, one after the other; of bfloat16
// between casts where `half`.
void random_network(Draft& draft, const Shape& x, bool half) {
  draft.network.inputs = {{-1, x[1], x[2], x[3]}};
  if (half) draft.weights = sepconv::DType::bf16;
  int value = half ? draft.add("cast", {0}, {1}) : 0;
  int64_t channels = x[3];
  for (int64_t blocks = 2 + draft.below(3); blocks > 0; --blocks) {
    const int64_t more = 16 + draft.below(40), start_channels = channels;
    const int start = value;
    value = draft.convolution(value, channels, more, 0, 1, false, true);
    if (draft.below(2)) value = draft.add("unary", {value}, {draft.below(5)}, {0.5, 4.0, 0.0});
    const bool strided = draft.below(3) == 0;
    const int64_t taps = draft.below(2) ? 3 : 5;
    if (draft.below(2)) {
      value = draft.convolution(value, more, more, taps, strided ? 2 : 1, false,
                                !strided || draft.below(2));
      if (draft.below(2)) {
        const int mean = draft.add("reduce", {value}, {0, 2, 1, 2, 1});
        const int gate = draft.add("unary", {mean}, {1}, {0, 0, 0});
        value = draft.add("binary", {value, gate}, {2});
      }
      const bool adds = !strided && draft.below(2);
      channels = adds ? start_channels : 16 + draft.below(30);
      value = draft.convolution(value, more, channels, 0, 1, false, true, adds ? start : -1);
    } else {
      const bool adds = !strided && draft.below(2);
      channels = adds ? start_channels : 16 + draft.below(30);
      value = draft.convolution(value, more, channels, taps, strided ? 2 : 1, true,
                                adds || draft.below(2), adds ? start : -1);
    }
  }
  draft.network.outputs = {half ? draft.add("cast", {value}, {0}) : value};
}

// All outputs, one after the other.
std::vector<float> call(const Program& program, const std::vector<float>& x, const Shape& shape) {
  const std::vector<Shape> shapes{shape};
  std::vector<std::vector<float>> results;
  std::vector<void*> outputs;
  for (const Shape& of : program.output_shapes(shapes)) {
    results.emplace_back(static_cast<size_t>(of.elements()));
    outputs.push_back(results.back().data());
  }
  const void* inputs[] = {x.data()};
  program.run(shapes, inputs, outputs.data());
  std::vector<float> all;
  for (const std::vector<float>& y : results) all.insert(all.end(), y.begin(), y.end());
  return all;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_bits(int networks) {
  for (int seed = 0; seed < networks; ++seed) {
    Draft draft(static_cast<uint32_t>(seed) + 1);
    const Shape shape{1 + draft.below(3), 8 + draft.below(20), 8 + draft.below(20),
                      16 + draft.below(20)};
    random_network(draft, shape, seed % 2 != 0);
    const std::vector<float> x = draft.numbers(shape);
    NetworkDescription network = draft.network;
    network.tuning.chain_from_bytes = -1;
    sepconv::set_num_threads(1);
    const Program plain(network);
    const std::vector<float> expected = call(plain, x, shape);
    network.tuning.chain_from_bytes = 0;
    for (const int64_t bytes : {int64_t{1}, int64_t{40000}, int64_t{1} << 30}) {
      network.tuning.strip_bytes = bytes;
      network.tuning.most_links = 2 + draft.below(5);
      const Program chained(network);
      for (const int threads : {1, 2, 3, 7}) {
        sepconv::set_num_threads(threads);
        CHECK(same_bits(call(chained, x, shape), expected));
      }
    }
    std::atomic<bool> changing{true};
    const Program chained(network);
    std::vector<std::thread> callers;
    for (int id = 0; id < 8; ++id)
      callers.emplace_back([&] {
        for (int round = 0; round < 5; ++round) CHECK(same_bits(call(chained, x, shape), expected));
      });
    std::thread changes([&] {
      for (int count = 1; changing; count = count % 8 + 1) {
        sepconv::set_num_threads(count);
        std::this_thread::yield();
      }
    });
    for (auto& caller : callers) caller.join();
    changing = false;
    changes.join();
  }
  sepconv::set_num_threads(3);
}

bool close(const std::vector<float>& a, const std::vector<float>& b, float room) {
  float largest = 0, apart = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    largest = std::max(largest, std::abs(b[i]));
    apart = std::max(apart, std::abs(a[i] - b[i]));
  }
  return a.size() == b.size() && apart <= room * largest;
}

// A batch that goes through the first steps a few images at a time: the results of the whole batch,
// the same bits on any number of threads and with chains.
void check_group(const NetworkDescription& given, Draft& draft, const Shape& shape) {
  const std::vector<float> x = draft.numbers(shape);
  NetworkDescription network = given;
  network.group_bytes = INT64_MAX;
  const Program whole(network);
  const std::vector<float> expected = call(whole, x, shape);
  const int64_t image = shape.elements() / shape[0] * 4;
  for (const int64_t bytes : {int64_t{1}, image, 2 * image, shape[0] * image}) {
    network.group_bytes = bytes;
    network.tuning.chain_from_bytes = -1;
    sepconv::set_num_threads(1);
    const std::vector<float> first = call(Program(network), x, shape);
    CHECK(close(first, expected, draft.weights == sepconv::DType::bf16 ? 0.03f : 1e-5f));
    network.tuning.chain_from_bytes = 0;
    const Program chained(network);
    for (const int threads : {2, 3}) {
      sepconv::set_num_threads(threads);
      CHECK(same_bits(call(chained, x, shape), first));
    }
  }
}

void check_groups(int networks) {
  for (int seed = 0; seed < networks; ++seed) {
    Draft draft(static_cast<uint32_t>(seed) + 1000);
    const Shape shape{2 + draft.below(5), 8 + draft.below(10), 8 + draft.below(10),
                      16 + draft.below(20)};
    const bool half = seed % 4 == 3;
    random_network(draft, shape, half);
    // An output from between, and what the group leaves for a later step.
    const auto steps = static_cast<int64_t>(draft.network.steps.size());
    const auto between = [&] {
      const int value = 1 + static_cast<int>(draft.below(steps));
      return half ? draft.add("cast", {value}, {0}) : value;
    };
    draft.network.outputs.push_back(between());
    draft.network.outputs.push_back(draft.add("transpose", {between()}, {4, 0, 2, 1, 3}));
    check_group(draft.network, draft, shape);
  }
  // Views, of which one is an output, and one holds for a single batch.
  for (const int64_t batch : {3, 4}) {
    Draft draft(5);
    draft.network.inputs = {{-1, 8, 8, 16}};
    int value = draft.convolution(0, 16, 16, 3, 1, true, true);
    const int flat = draft.add("reshape", {value}, {2, 0, -1});
    value = draft.add("unary", {flat}, {1}, {0, 0, 0});
    value = draft.add("reshape", {value}, {4, 0, 8, 8, 16});
    value = draft.convolution(value, 16, 24, 3, 1, true, true);
    draft.network.outputs = {value, flat};
    check_group(draft.network, draft, {batch, 8, 8, 16});
    draft.add("reshape", {value}, {4, 3, -1, 8, 24});
    if (batch == 3) {
      draft.network.outputs = {static_cast<int>(draft.network.steps.size())};
      check_group(draft.network, draft, {batch, 8, 8, 16});
    }
  }
}

void check_chosen_groups() {
  const auto chosen = [](const std::vector<StepSize>& steps, int64_t batch) {
    const Group group = choose_group(steps, batch, 100);
    return std::vector<int64_t>{group.first, group.end, group.images};
  };
  const std::vector<int64_t> none{0, 0, 0};
  const StepSize large{true, 60, 1}, small{true, 5, 1}, heavy{true, 60, 61}, other{false, 60, 1};
  CHECK((chosen({large, small, small, small}, 1) == none));
  CHECK((chosen({small, small}, 8) == none));
  CHECK((chosen({heavy, heavy}, 8) == none));
  CHECK((chosen({large, small, small, small}, 8) == std::vector<int64_t>{0, 2, 1}));
  CHECK((chosen({small, large, small, large}, 2) == std::vector<int64_t>{1, 4, 1}));
  CHECK((chosen({other, large, other, large}, 4) == std::vector<int64_t>{1, 2, 1}));
  CHECK((chosen({{true, 30, 1}, small, small}, 9) == std::vector<int64_t>{0, 2, 3}));
  CHECK((chosen({{true, 30, 1}, small, small}, 7) == std::vector<int64_t>{0, 2, 1}));
}

// Links that see many rows around their own: a part of a chain may begin at any row.
void check_tall_kernels() {
  for (const int64_t taps : {7, 9, 11}) {
    Draft draft(static_cast<uint32_t>(taps));
    draft.network.inputs = {{-1, -1, 9, 16}};
    int value = draft.convolution(0, 16, 16, 0, 1, false, true);
    value = draft.convolution(value, 16, 16, taps, 1, true, true);
    value = draft.convolution(value, 16, 16, taps, 2, true, true);
    draft.network.outputs = {draft.convolution(value, 16, 16, taps, 1, false, true)};
    draft.network.tuning.chain_from_bytes = 0;
    for (const int64_t height : {31, 47, 64}) {
      const Shape shape{1, height, 9, 16};
      const std::vector<float> x = draft.numbers(shape);
      for (const int64_t bytes : {1, 10000, 40000, 80000}) {
        draft.network.tuning.strip_bytes = bytes;
        draft.network.tuning.most_links = -1;
        sepconv::set_num_threads(1);
        const std::vector<float> expected = call(Program(draft.network), x, shape);
        draft.network.tuning.most_links = 4;
        const Program chained(draft.network);
        for (const int threads : {1, 2, 3, 5}) {
          sepconv::set_num_threads(threads);
          CHECK(same_bits(call(chained, x, shape), expected));
        }
      }
    }
  }
  sepconv::set_num_threads(3);
}

// Arrays that are alive together do not overlap: every value is read again at the end.
void check_memory() {
  Draft draft(7);
  draft.network.inputs = {{-1, -1}};
  std::vector<int> values{0};
  for (int i = 0; i < 12; ++i)
    values.push_back(draft.add("unary", {values.back()}, {30}, {1.0, 1.0, 0.0}));  // x + 1
  int sum = values[0];
  for (const int value : values) sum = draft.add("binary", {sum, value}, {0});
  // Views of one array, in place over each other, and twice the same input.
  const int view = draft.add("reshape", {sum}, {2, -1, 1});
  const int twice = draft.add("binary", {view, view}, {0});
  const int back = draft.add("reshape", {twice}, {2, -1, 16});
  draft.network.outputs = {back, sum, back, 0};
  const Program program(draft.network);
  const std::vector<Shape> shapes{{4, 16}};
  std::vector<float> x;
  for (int i = 0; i < 64; ++i) x.push_back(static_cast<float>(i));
  std::vector<float> y[4] = {x, x, x, x};
  const void* inputs[] = {x.data()};
  void* outputs[] = {y[0].data(), y[1].data(), y[2].data(), y[3].data()};
  program.run(shapes, inputs, outputs);
  for (size_t i = 0; i < x.size(); ++i) {
    const float expected = 14 * x[i] + 78;
    CHECK(y[0][i] == 2 * expected && y[2][i] == 2 * expected);
    CHECK(y[1][i] == expected && y[3][i] == x[i]);
  }
  CHECK(program.memory(shapes).arena < program.memory(shapes).naive);
}

// Denormal numbers are zeros within a program, on every thread, and the caller's mode stays.
void check_denormals() {
  Draft draft(3);
  draft.network.inputs = {{-1, -1}};
  const int tiny = draft.add("unary", {0}, {30}, {1e-20, 0.0, 0.0});
  draft.network.outputs = {draft.add("unary", {tiny}, {30}, {1e20, 0.0, 0.0})};
  const Program program(draft.network);
  const std::vector<Shape> shapes{{1000, 100}};
  const std::vector<float> x(100000, 1e-20f);
  std::vector<float> y(x.size(), 1.0f);
  const void* inputs[] = {x.data()};
  void* outputs[] = {y.data()};
  program.run(shapes, inputs, outputs);
  CHECK(y == std::vector<float>(x.size(), 0.0f));
  volatile float number = 1e-20f;
  CHECK(number * number != 0.0f);
}

void check_refusals() {
  const auto refused = [](auto change, const char* part) {
    Draft draft(1);
    draft.network.inputs = {{-1, 8, 8, 3}};
    const int y = draft.convolution(0, 3, 16, 3, 1, true, true);
    draft.network.outputs = {y};
    change(draft);
    std::string message;
    try {
      Program(draft.network).output_shapes({Shape{1, 8, 8, 3}});
    } catch (const std::invalid_argument& error) {
      message = error.what();
    }
    if (!CHECK(message.find(part) != std::string::npos))
      std::fprintf(stderr, "'%s' was expected in '%s'\n", part, message.c_str());
  };
  refused([](Draft& d) { d.network.outputs = {9}; }, "no value of the number of an output");
  refused([](Draft& d) { d.network.outputs.clear(); }, "must have an output");
  refused([](Draft& d) { d.network.steps[0].inputs = {1}; }, "does not come before it");
  refused([](Draft& d) { d.network.steps[0].inputs = {0, 0, 0}; }, "It takes 1 to 2 inputs");
  refused([](Draft& d) { d.network.steps[0].operation = "dream"; }, "no such operation");
  refused([](Draft& d) { d.network.steps[0].ints.pop_back(); }, "attribute is missing");
  refused([](Draft& d) { d.network.steps[0].ints[1] = 0; }, "must be positive");
  refused([](Draft& d) { d.network.steps[0].ints[6] = 1; }, "not that of a convolution");
  refused([](Draft& d) { d.network.steps[0].ints.back() = 5; }, "activation must be 0 to 4");
  refused([](Draft& d) { d.network.steps[0].tensors[0] = d.tensor({3, 3, 4, 1}, 1); },
          "The step 'convolution0' (convolution)");
  refused([](Draft& d) { d.network.steps[0].tensors[2] = d.tensor({1, 1, 4, 2}, 1); },
          "pointwise_kernel must have the shape");
  refused([](Draft& d) { d.network.inputs[0][1] = 7; }, "Input 0 must have the shape");
  refused([](Draft& d) { d.add("reshape", {0}, {3, 5, -1, 7}), d.network.outputs = {2}; },
          "cannot be seen as");
  refused([](Draft& d) { d.add("concatenate", {0, 1}, {4}), d.network.outputs = {2}; },
          "axis must be 0 to 3");
  refused(
      [](Draft& d) {
        d.add("resize", {0}, {0, 2, int64_t{1} << 40, int64_t{1} << 40, 0}),
            d.network.outputs = {2};
      },
      "more elements than memory can address");
  refused([](Draft& d) { d.network.dtype = sepconv::DType::bf16; }, "float32 or float64");
  refused([](Draft& d) { d.network.dtype = sepconv::DType::f64; },
          "A tensor must be of float64. Received: float32");
  refused([](Draft& d) { d.network.outputs = {d.add("cast", {1}, {1})}; },
          "Outputs must be of float32. Received: bfloat16");
  refused([](Draft& d) { d.add("cast", {0}, {2}); }, "dtype must be 0 to 1");
  refused([](Draft& d) { d.add("concatenate", {0, d.add("cast", {0}, {1})}, {3}); },
          "Its inputs must be of one dtype. Received: float32 and bfloat16");
  refused([](Draft& d) { d.add("cast", {d.bytes()}, {0}); }, "It takes no inputs of uint8");
  refused([](Draft& d) { d.add("pad", {d.bytes()}, {1, 0, 1, 0}, {0.5}); },
          "value must be a whole number, 0 to 255, for uint8");
  refused([](Draft& d) { d.add("resize", {d.bytes()}, {1, 2, 2, 2, 0}); }, "no bilinear resize");
  refused(
      [](Draft& d) { d.add("pool", {d.bytes()}, {1, 2, 2, 2, 10, 2, 2, 1, 1, 1, 0, 0, 0, 0, 0}); },
      "no average pool");
  refused([](Draft& d) { d.add("constant", {}, {}, {}, {d.tensor({3}, 1, sepconv::DType::i8)}); },
          "A constant must be of a dtype of values. Received: int8");
}

}  // namespace

void check_programs(int networks) {
  check_bits(networks);
  check_groups(8 * networks);
  check_chosen_groups();
  check_tall_kernels();
  check_memory();
  check_denormals();
  check_refusals();
}

}  // namespace test
