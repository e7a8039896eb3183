// Int8 convolutions on random problems, to the bit as the plain loops of int8_reference.h have
// them.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../../native/quantized.h"
#include "check.h"
#include "guarded.h"
#include "int8_reference.h"
#include "runners.h"
#include "sections.h"

namespace test {
namespace {

using sepconv::Geometry;
using sepconv::QuantizedWeights;
using sepconv::Requantize;

class Draw {
 public:
  explicit Draw(uint32_t seed) : random_(seed) {}
  int64_t between(int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random_);
  }
  bool one_in(int64_t count) { return between(1, count) == 1; }
  template <class T>
  T of(std::initializer_list<T> choices) {
    return *(choices.begin() + between(0, static_cast<int64_t>(choices.size()) - 1));
  }
  template <class T>
  std::vector<T> values(int64_t count, int64_t least, int64_t most) {
    std::vector<T> drawn(static_cast<size_t>(count));
    for (T& value : drawn) value = static_cast<T>(between(least, most));
    return drawn;
  }

 private:
  std::mt19937 random_;
};

// A rounding and the vectors that it points to. Sums are about `spread` large.
struct DrawnRounding {
  std::vector<int32_t> bias;
  std::vector<float> scale;
  std::vector<uint8_t> table;
  Requantize to;

  void draw(Draw& draw, int64_t channels, double spread, bool extreme) {
    bias =
        draw.values<int32_t>(channels, -static_cast<int64_t>(spread), static_cast<int64_t>(spread));
    for (int64_t c = 0; c < channels; ++c) {
      scale.push_back(static_cast<float>(static_cast<double>(draw.between(20, 300)) / spread));
      if (draw.one_in(9)) scale.back() = 0.5f;  // ties
      if (extreme) {
        // Sums near the ends of int32, and results that no int32 holds.
        bias[static_cast<size_t>(c)] = draw.of({2000000000, -2000000000, 0, 16777217});
        scale.back() = draw.of({1e-8f, 0.75f, 3.0f, 1e30f, 5e-8f});
      }
    }
    to.zero_point = static_cast<int32_t>(draw.one_in(4) ? draw.of({0, 255}) : draw.between(0, 255));
    to.lower = static_cast<int32_t>(draw.one_in(2) ? to.zero_point : draw.between(0, 200));
    to.upper = static_cast<int32_t>(draw.one_in(2) ? 255 : draw.between(to.lower, 255));
    to.bias = draw.one_in(6) && !extreme ? nullptr : bias.data();
    to.scale = scale.data();
    if (draw.one_in(3)) {
      table = draw.values<uint8_t>(256, 0, 255);
      to.table = table.data();
    }
  }
};

struct Problem {
  Geometry g;
  QuantizedWeights w;
  bool extreme;
  std::vector<int8_t> depthwise, mixing;
  DrawnRounding between, output;
};

enum class Kind { depthwise, separable, product, ordinary };

Problem draw_problem(Draw& draw) {
  Problem p{};
  Geometry& g = p.g;
  const Kind kind = draw.of({Kind::depthwise, Kind::separable, Kind::product, Kind::ordinary});
  const bool depthwise = kind == Kind::depthwise || kind == Kind::separable;
  p.extreme = draw.one_in(5);
  g.n = draw.between(1, 3);
  g.c = depthwise ? draw.of({1, 3, 8, 15, 16, 17, 24, 32, 40, 48, 56, 64, 72, 80, 96, 112, 144})
                  : draw.of({1, 2, 3, 4, 5, 7, 16, 24, 33, 64, 101, 130});
  if (kind == Kind::product) {
    g.kh = g.kw = 1;
  } else {
    g.kh = draw.of({1, 2, 3, 3, 3, 4, 5, 5, 7, 8, 9});
    g.kw = draw.one_in(2) ? std::min<int64_t>(g.kh, 7) : draw.of({1, 2, 3, 3, 5, 7, 8});
  }
  if (!depthwise && g.kh * g.kw * g.c > 1500) g.c = draw.between(1, 5);
  g.m = depthwise && draw.one_in(5) ? draw.between(2, 3) : 1;
  g.sh = kind == Kind::product ? 1 : draw.of({1, 1, 1, 2, 2, 3});
  g.sw = draw.one_in(4) && kind != Kind::product ? draw.between(1, 3) : g.sh;
  g.dh = draw.one_in(5) ? 2 : 1;
  g.dw = draw.one_in(5) ? draw.between(2, 3) : 1;
  g.h = draw.between(1, 12), g.w = draw.between(1, 21);
  if (kind != Kind::product) {
    g.pt = draw.between(-1, (g.kh - 1) * g.dh + 1), g.pl = draw.between(0, (g.kw - 1) * g.dw + 1);
    g.ho = draw.between(1, std::max<int64_t>(1, (g.h + g.pt) / g.sh + 1));
    g.wo = draw.between(1, std::max<int64_t>(1, (g.w + g.pl) / g.sw + 1));
  } else {
    g.ho = g.h, g.wo = g.w;
  }
  g.channels_first = draw.one_in(4);

  QuantizedWeights& w = p.w;
  w = {.kh = g.kh, .kw = g.kw, .c = g.c, .m = g.m, .sh = g.sh, .sw = g.sw, .dh = g.dh, .dw = g.dw};
  w.filters = kind == Kind::depthwise ? 0
              : draw.one_in(3)        ? draw.of({16, 32, 64, 128})
                                      : draw.between(1, 100);
  w.input_zero_point =
      static_cast<int32_t>(draw.one_in(4) ? draw.of({0, 255}) : draw.between(0, 255));
  const bool ends = draw.one_in(4);  // weights and bytes at their ends alone
  const auto weights = [&](int64_t count) {
    auto drawn = draw.values<int8_t>(count, -127, 127);
    if (ends)
      for (int8_t& value : drawn) value = value < 0 ? -127 : 127;
    return drawn;
  };
  if (depthwise) {
    p.depthwise = weights(g.kh * g.kw * w.middle());
    p.between.draw(draw, w.middle(), 9000.0 * static_cast<double>(g.kh * g.kw), p.extreme);
  }
  if (w.filters != 0) {
    const int64_t depth = depthwise ? w.middle() : g.kh * g.kw * g.c;
    p.mixing = weights(depth * w.filters);
    p.output.draw(draw, w.filters, 9000.0 * static_cast<double>(depth), p.extreme);
    w.residual_zero_point = static_cast<int32_t>(draw.between(0, 255));
    w.residual_scale = static_cast<float>(draw.between(1, 400)) / 97.0f;
  }
  return p;
}

struct Rooms {
  static constexpr size_t kBytes = size_t{1} << 20;
  Guarded x{kBytes}, residual{kBytes}, y{kBytes};
};

const uint8_t* put_in(Guarded& room, const std::vector<uint8_t>& values, Edge edge) {
  auto* const p = static_cast<uint8_t*>(room.place(values.size(), edge));
  std::copy(values.begin(), values.end(), p);
  room.make_read_only();
  return p;
}

void print_problem(uint32_t seed, const Problem& p, int threads, const char* more, size_t at,
                   size_t of) {
  const Geometry& g = p.g;
  const QuantizedWeights& w = p.w;
  std::fprintf(
      stderr,
      "  int8, seed %u, %d threads: n %lld, %lld x %lld x %lld -> %lld x %lld x %lld, "
      "kernel %lld x %lld x %lld, strides %lld %lld, dilations %lld %lld, pads %lld "
      "%lld%s%s; element %zu of %zu\n",
      seed, threads, static_cast<long long>(g.n), static_cast<long long>(g.h),
      static_cast<long long>(g.w), static_cast<long long>(g.c), static_cast<long long>(g.ho),
      static_cast<long long>(g.wo), static_cast<long long>(w.outputs()),
      static_cast<long long>(g.kh), static_cast<long long>(g.kw),
      static_cast<long long>(w.is_depthwise() ? g.m : w.filters), static_cast<long long>(g.sh),
      static_cast<long long>(g.sw), static_cast<long long>(g.dh), static_cast<long long>(g.dw),
      static_cast<long long>(g.pt), static_cast<long long>(g.pl),
      g.channels_first ? ", channels first" : "", more, at, of);
}

// `run(y, runner)` gives what is expected, to the bit, on any number of threads.
template <class Y, class Run>
void check_results(uint32_t seed, const Problem& p, const std::vector<Y>& expected, Guarded& room,
                   Edge edge, const char* more, const Run& run) {
  const size_t bytes = expected.size() * sizeof(Y);
  ReverseRunner reverse;
  for (int threads = 0; threads <= 3; ++threads) {
    auto* const y = static_cast<Y*>(room.place(bytes, edge));
    std::memset(y, 0x5a, bytes);
    if (threads > 0) sepconv::set_num_threads(threads);
    run(y, threads == 0 ? static_cast<sepconv::Runner&>(reverse) : sepconv::pool());
    const bool right = std::memcmp(y, expected.data(), bytes) == 0;
    if (!CHECK(right && room.intact())) {
      size_t first = 0;
      while (first < expected.size() && y[first] == expected[first]) ++first;
      print_problem(seed, p, threads, more, first, expected.size());
      return;
    }
  }
}

void check_one(uint32_t seed, Rooms& rooms) {
  Draw draw(seed);
  Problem p = draw_problem(draw);
  const Geometry& g = p.g;
  QuantizedWeights& w = p.w;
  w.depthwise_kernel = p.depthwise.empty() ? nullptr : p.depthwise.data();
  w.pointwise_kernel = p.mixing.empty() ? nullptr : p.mixing.data();
  w.depthwise = p.between.to;
  w.output = p.output.to;
  const Edge edge = draw.of({Edge::front, Edge::back});
  auto x = draw.values<uint8_t>(g.n * g.h * g.w * g.c, 0, 255);
  if (draw.one_in(4))
    for (uint8_t& value : x) value = value < 128 ? 0 : 255;
  const int64_t outputs = g.n * g.ho * g.wo * w.outputs();
  const auto residual =
      draw.values<uint8_t>(w.mixes() && draw.one_in(3) ? outputs : int64_t{0}, 0, 255);
  const uint8_t* const from = put_in(rooms.x, x, edge);
  const uint8_t* const added = residual.empty() ? nullptr : put_in(rooms.residual, residual, edge);
  const sepconv::PreparedQuantized prepared(w);
  check_results(seed, p, convolve<uint8_t>(g, w, from, added), rooms.y, edge,
                added != nullptr ? ", residual" : "", [&](uint8_t* y, sepconv::Runner& runner) {
                  prepared.forward(g, from, added, y, runner);
                });
  if (!w.mixes()) return;
  w.output.table = nullptr;
  const sepconv::PreparedQuantized plain(w);
  check_results(seed, p, convolve<float>(g, w, from, nullptr), rooms.y, edge, ", to float32",
                [&](float* y, sepconv::Runner& runner) { plain.forward(g, from, y, runner); });
}

// What could leave int32, or is no byte, is refused.
void check_refusals() {
  const std::vector<int8_t> kernel(70000, 127);
  const float scale = 1.0f, infinite = INFINITY;
  const int32_t bias = 2147483000;
  QuantizedWeights w{.c = 70000, .filters = 1, .pointwise_kernel = kernel.data()};
  w.output.scale = &scale;
  CHECK_THROWS(sepconv::PreparedQuantized(w), std::invalid_argument, "must stay within int32");
  w.c = 1;
  w.output.bias = &bias;
  CHECK_THROWS(sepconv::PreparedQuantized(w), std::invalid_argument, "must stay within int32");
  w.output.bias = nullptr;
  CHECK(sepconv::PreparedQuantized(w).bytes() > 0);
  w.output.scale = &infinite;
  CHECK_THROWS(sepconv::PreparedQuantized(w), std::invalid_argument, "A scale must be finite");
  w.output.scale = &scale;
  w.output.upper = 256;
  CHECK_THROWS(sepconv::PreparedQuantized(w), std::invalid_argument, "upper must be 0 to 255");
  w.output.upper = 3;
  w.output.lower = 4;
  CHECK_THROWS(sepconv::PreparedQuantized(w), std::invalid_argument, "lower must be at most upper");
  w.output.lower = 0;
  w.input_zero_point = -1;
  CHECK_THROWS(sepconv::PreparedQuantized(w), std::invalid_argument, "input_zero_point");
}

}  // namespace

void check_int8(int problems) {
  const int threads = sepconv::num_threads();
  Rooms rooms;
  for (int i = 0; i < problems; ++i) check_one(static_cast<uint32_t>(i), rooms);
  sepconv::set_num_threads(threads);
  check_refusals();
}

}  // namespace test
