// Runs one problem on guarded buffers and holds every result against the plain loops.
#pragma once
#include <memory>
#include <string>

#include "../../native/prepared.h"
#include "guarded.h"
#include "reference.h"

namespace test {

enum Slot {
  kX,
  kKernel,
  kPointwise,
  kBias,
  kDy,
  kY,
  kDx,
  kDkernel,
  kDpointwise,
  kDbias,
  kDepthwiseBias,
  kResidual,
  kOrdinary,
  kSlots
};

// Buffers for one thread's calls.
class Buffers {
 public:
  Buffers() {
    for (auto& b : all_) b = std::make_unique<Guarded>(kMostElements * sizeof(double));
  }
  // The next problem's buffers touch the other guard page.
  void turn() { edge_ = edge_ == Edge::back ? Edge::front : Edge::back; }
  template <class T>
  const T* input(Slot slot, const std::vector<T>& values) {
    T* p = static_cast<T*>(all_[slot]->place(values.size() * sizeof(T), edge_));
    std::copy(values.begin(), values.end(), p);
    all_[slot]->make_read_only();
    return p;
  }
  template <class T>
  T* output(Slot slot, int64_t count) {
    return static_cast<T*>(all_[slot]->place(static_cast<size_t>(count) * sizeof(T), edge_));
  }
  bool intact() {
    bool all = true;
    for (auto& b : all_) all = b->intact() && all;
    return all;
  }

 private:
  Edge edge_ = Edge::back;
  std::unique_ptr<Guarded> all_[kSlots];
};

template <class T>
struct Results {
  std::vector<T> y, dx, dkernel, dpointwise, dbias;
  bool same_bits(const Results& other) const {
    const auto same = [](const std::vector<T>& a, const std::vector<T>& b) {
      return a.size() == b.size() &&
             (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
    };
    return same(y, other.y) && same(dx, other.dx) && same(dkernel, other.dkernel) &&
           same(dpointwise, other.dpointwise) && same(dbias, other.dbias);
  }
};

template <class T>
std::vector<T> depthwise_values(const Problem& p, Special special) {
  if (!p.selecting) return random_values<T>(p.depthwise_elements(), p.seed + 1, special);
  std::vector<T> values(static_cast<size_t>(p.depthwise_elements()));
  for (int64_t tap = 0; tap < p.g.m; ++tap)
    for (int64_t c = 0; c < p.g.c; ++c)
      values[static_cast<size_t>((tap * p.g.c + c) * p.g.m + tap)] = 1;
  return values;
}

template <class T>
Inputs<T> make_inputs(const Problem& p) {
  const auto special = [&](Numbers which) {
    return p.numbers == Numbers::denormal ? Special::denormal
           : p.numbers == which           ? Special::nonfinite
                                          : Special::none;
  };
  return {
      random_values<T>(p.x_elements(), p.seed, special(Numbers::nonfinite_x)),
      depthwise_values<T>(p, special(Numbers::nonfinite_weights)),
      random_values<T>(p.pointwise_elements(), p.seed + 2, special(Numbers::nonfinite_weights)),
      random_values<T>(p.bias ? p.outputs() : 0, p.seed + 3, Special::none),
      random_values<T>(p.y_elements(), p.seed + 4, special(Numbers::nonfinite_dy)),
      random_values<T>(p.depthwise_bias ? p.depthwise_channels() : 0, p.seed + 5, Special::none),
      random_values<T>(p.residual ? p.y_elements() : 0, p.seed + 6, special(Numbers::nonfinite_x))};
}

// The elements of an output, none where it was not asked for.
template <class T>
std::vector<T> copied(const T* from, int64_t count) {
  return from == nullptr ? std::vector<T>() : std::vector<T>(from, from + count);
}

// The kernel [kh, kw, C, filters] of the ordinary convolution that a selecting one is.
template <class T>
std::vector<T> ordinary_kernel(const Problem& p, const Inputs<T>& in) {
  const int64_t taps = p.g.kh * p.g.kw;
  std::vector<T> kernel(in.pointwise.size());
  for (int64_t c = 0; c < p.g.c; ++c)
    for (int64_t tap = 0; tap < taps; ++tap)
      std::copy_n(in.pointwise.begin() + (c * taps + tap) * p.filters, p.filters,
                  kernel.begin() + (tap * p.g.c + c) * p.filters);
  return kernel;
}

// y of a convolution whose weights were prepared, and are gone when it is called.
template <class T>
std::vector<T> run_prepared(const Problem& p, const Inputs<T>& in, sepconv::Runner& runner,
                            Buffers& buffers, std::string* why) {
  sepconv::Forward args{};
  args.depthwise_kernel = buffers.input(kKernel, in.kernel);
  if (p.depthwise_bias) args.depthwise_bias = buffers.input(kDepthwiseBias, in.depthwise_bias);
  args.pointwise_kernel = p.separable ? buffers.input(kPointwise, in.pointwise) : nullptr;
  args.bias = p.bias ? buffers.input(kBias, in.bias) : nullptr;
  args.filters = p.filters;
  args.depthwise_activation = p.depthwise_activation;
  args.activation = p.activation;
  if (p.ordinary) {
    args.depthwise_kernel = nullptr;
    args.pointwise_kernel = buffers.input(kOrdinary, ordinary_kernel(p, in));
  }
  const sepconv::Geometry g = p.forward_geometry();
  const sepconv::PreparedConvolution prepared(
      {p.dtype, g.channels_first, g.kh * g.kw, g.c, g.m, args});
  for (const Slot slot : {kKernel, kPointwise, kOrdinary}) buffers.output<T>(slot, 0);
  const T* residual = p.residual ? buffers.input(kResidual, in.residual) : nullptr;
  T* y = buffers.output<T>(kY, p.y_elements());
  prepared.forward(g, buffers.input(kX, in.x), residual, y, runner);
  if (!buffers.intact()) *why += "memory beside a buffer was written to; ";
  return std::vector<T>(y, y + p.y_elements());
}

// Calls forward and backward. `why` says which buffer was left, where one was.
template <class T>
Results<T> run(const Problem& p, const Inputs<T>& in, sepconv::Runner& runner, Buffers& buffers,
               std::string* why) {
  const T* x = buffers.input(kX, in.x);
  const T* kernel = buffers.input(kKernel, in.kernel);
  const T* pointwise = p.separable ? buffers.input(kPointwise, in.pointwise) : nullptr;
  const T* bias = p.bias ? buffers.input(kBias, in.bias) : nullptr;
  const T* dy = buffers.input(kDy, in.dy);
  T* y = buffers.output<T>(kY, p.y_elements());
  T* dx = p.want_dx ? buffers.output<T>(kDx, p.x_elements()) : nullptr;
  T* dkernel = p.want_ddepthwise ? buffers.output<T>(kDkernel, p.depthwise_elements()) : nullptr;
  T* dpointwise =
      p.want_dpointwise ? buffers.output<T>(kDpointwise, p.pointwise_elements()) : nullptr;
  T* dbias = p.want_dbias ? buffers.output<T>(kDbias, p.outputs()) : nullptr;
  sepconv::Forward forward{.x = x,
                           .depthwise_kernel = kernel,
                           .pointwise_kernel = pointwise,
                           .bias = bias,
                           .y = y,
                           .filters = p.filters,
                           .depthwise_activation = p.depthwise_activation,
                           .activation = p.activation};
  if (p.depthwise_bias) forward.depthwise_bias = buffers.input(kDepthwiseBias, in.depthwise_bias);
  if (p.residual) forward.residual = buffers.input(kResidual, in.residual);
  if (p.ordinary) {
    forward.depthwise_kernel = nullptr;
    forward.pointwise_kernel = buffers.input(kOrdinary, ordinary_kernel(p, in));
  }
  sepconv::forward(p.dtype, p.forward_geometry(), forward, runner);
  sepconv::Backward call{.x = x,
                         .depthwise_kernel = kernel,
                         .pointwise_kernel = pointwise,
                         .dy = dy,
                         .dx = dx,
                         .ddepthwise = dkernel,
                         .dpointwise = dpointwise,
                         .dbias = dbias,
                         .filters = p.filters};
  if (p.drop_unneeded) {
    if (!p.want_ddepthwise && !p.want_dpointwise) call.x = nullptr;
    if (!p.want_dx && !p.want_dpointwise) call.depthwise_kernel = nullptr;
    if (!p.want_dx && !p.want_ddepthwise) call.pointwise_kernel = nullptr;
  }
  sepconv::backward(p.dtype, p.g, call, runner);
  if (!buffers.intact()) *why += "memory beside a buffer was written to; ";
  return {copied(y, p.y_elements()), copied(dx, p.x_elements()),
          copied(dkernel, p.depthwise_elements()), copied(dpointwise, p.pointwise_elements()),
          copied(dbias, p.outputs())};
}

// What a product's buffers hold. The depthwise kernel of the convolution that says the same is
// ones.
template <class T>
Inputs<T> product_inputs(const Problem& p) {
  Inputs<T> in = make_inputs<T>(p);
  std::fill(in.kernel.begin(), in.kernel.end(), T(1));
  return in;
}

// As `run`, of the 1x1 product alone.
template <class T>
Results<T> run_product(const Product& product, const Inputs<T>& in, sepconv::Runner& runner,
                       Buffers& buffers, std::string* why) {
  const Problem& p = product.problem;
  const T* x = buffers.input(kX, in.x);
  const T* kernel = buffers.input(kPointwise, in.pointwise);
  const T* bias = p.bias ? buffers.input(kBias, in.bias) : nullptr;
  const T* dy = buffers.input(kDy, in.dy);
  T* y = buffers.output<T>(kY, p.y_elements());
  T* dx = p.want_dx ? buffers.output<T>(kDx, p.x_elements()) : nullptr;
  T* dkernel = p.want_dpointwise ? buffers.output<T>(kDpointwise, p.pointwise_elements()) : nullptr;
  T* dbias = p.want_dbias ? buffers.output<T>(kDbias, p.outputs()) : nullptr;
  const T* residual = p.residual ? buffers.input(kResidual, in.residual) : nullptr;
  sepconv::pointwise_forward(p.dtype, product.shape,
                             {.x = x,
                              .pointwise_kernel = kernel,
                              .bias = bias,
                              .residual = residual,
                              .y = y,
                              .activation = p.activation},
                             runner);
  sepconv::pointwise_backward(p.dtype, product.shape,
                              {.x = p.want_dpointwise ? x : nullptr,
                               .pointwise_kernel = p.want_dx ? kernel : nullptr,
                               .dy = dy,
                               .dx = dx,
                               .dpointwise = dkernel,
                               .dbias = dbias},
                              runner);
  if (!buffers.intact()) *why += "memory beside a buffer was written to; ";
  return {copied(y, p.y_elements()),
          copied(dx, p.x_elements()),
          {},
          copied(dkernel, p.pointwise_elements()),
          copied(dbias, p.outputs())};
}

inline std::string text_of(const Problem& p) {
  const auto& g = p.g;
  const auto list = [](std::initializer_list<int64_t> values) {
    std::string text;
    for (int64_t v : values) text += (text.empty() ? "" : ",") + std::to_string(v);
    return text;
  };
  return "n,h,w,c=" + list({g.n, g.h, g.w, g.c}) + " kh,kw,m=" + list({g.kh, g.kw, g.m}) +
         " strides=" + list({g.sh, g.sw}) + " dilation=" + list({g.dh, g.dw}) +
         " pads=" + list({g.pt, g.pl}) + " ho,wo=" + list({g.ho, g.wo}) + " activations=" +
         list({static_cast<int64_t>(p.depthwise_activation), static_cast<int64_t>(p.activation)}) +
         " biases,residual=" + list({p.depthwise_bias, p.bias, p.residual}) +
         " first=" + std::to_string(g.channels_first) + " filters=" + std::to_string(p.filters) +
         " dtype=" + std::to_string(static_cast<int>(p.dtype)) +
         " numbers=" + std::to_string(static_cast<int>(p.numbers)) +
         " seed=" + std::to_string(p.seed);
}

// What is wrong with the kernels' results, or nothing.
template <class T>
std::string wrong(const Problem& p, const Inputs<T>& in, const Results<T>& r) {
  const Expected e = expected_results(p, in);
  const auto taps = static_cast<double>(p.g.kh * p.g.kw);
  const auto pixels = static_cast<double>(p.g.n * p.g.ho * p.g.wo);
  const auto channels = static_cast<double>(p.depthwise_channels());
  const auto filters = static_cast<double>(p.filters);
  std::string text;
  if (!near(r.y.data(), e.y, taps + channels)) text += "y ";
  if (p.want_dx && !near(r.dx.data(), e.dx, taps * static_cast<double>(p.g.m) + filters))
    text += "dx ";
  if (p.want_ddepthwise && !near(r.dkernel.data(), e.ddepthwise, pixels + filters))
    text += "ddepthwise ";
  if (p.want_dpointwise && !near(r.dpointwise.data(), e.dpointwise, pixels + taps))
    text += "dpointwise ";
  if (p.want_dbias && !near(r.dbias.data(), e.dbias, pixels)) text += "dbias ";
  return text;
}

// Runs a problem once and says what is wrong.
template <class T>
std::string verdict(const Problem& p, sepconv::Runner& runner, Buffers& buffers) {
  const Inputs<T> in = make_inputs<T>(p);
  std::string why;
  const Results<T> results = run(p, in, runner, buffers, &why);
  why += wrong(p, in, results);
  return why.empty() ? why : why + "of " + text_of(p);
}

// Calls f with a nought of the type that a dtype stores.
template <class F>
auto with_type(sepconv::DType dtype, F&& f) {
  switch (dtype) {
    case sepconv::DType::f64:
      return f(double{});
    case sepconv::DType::bf16:
      return f(BFloat16{});
    case sepconv::DType::f16:
      return f(Float16{});
    default:
      return f(float{});
  }
}

inline std::string verdict(const Problem& p, sepconv::Runner& runner, Buffers& buffers) {
  return with_type(p.dtype, [&](auto zero) { return verdict<decltype(zero)>(p, runner, buffers); });
}

}  // namespace test
