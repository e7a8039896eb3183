// The kernels of one instruction set for the half types. Products and batch normalization
// read and write half types themselves; the others widen a few images at a time to float32, in
// memory small enough for a cache, call the float32 kernels and narrow the results.
//
// So no whole tensor is ever held in float32, and sums are those of float32, rounded once. Compiled
// once a level, with SEPCONV_ISA_NAMESPACE and SEPCONV_VECTOR_BYTES given by the build.
#include "../tuning.h"
#include "batch_norm.h"
#include "batch_parts.h"
#include "half.h"
#include "kernel_table.h"
#include "plan.h"
#include "products.h"
#include "roofline.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

// An operand of `size` elements a unit, or null. `room` units are in float32 at a time.
template <class Half>
class Widened {
 public:
  Widened(const void* stored, int64_t size, int64_t room)
      : stored_(static_cast<const Half*>(stored)),
        size_(size),
        floats_(stored == nullptr ? 0 : size * room) {}
  // Units [first, first + count).
  const float* read(int64_t first, int64_t count, Runner& runner) const {
    if (stored_ == nullptr) return nullptr;
    in_parts(runner, count * size_, [&](int64_t i, int64_t run) {
      convert_run(stored_ + first * size_ + i, run, floats_.get() + i);
    });
    return floats_.get();
  }

 private:
  const Half* stored_;
  int64_t size_;
  Workspace<float> floats_;
};

// A result, likewise.
template <class Half>
class Narrowed {
 public:
  Narrowed(void* stored, int64_t size, int64_t room)
      : stored_(static_cast<Half*>(stored)),
        size_(size),
        floats_(stored == nullptr ? 0 : size * room) {}
  float* get() const { return floats_.get(); }
  void write(int64_t first, int64_t count, Runner& runner) const {
    if (stored_ == nullptr) return;
    in_parts(runner, count * size_, [&](int64_t i, int64_t run) {
      convert_run(floats_.get() + i, run, stored_ + first * size_ + i);
    });
  }

 private:
  Half* stored_;
  int64_t size_;
  Workspace<float> floats_;
};

// A result that is summed over the parts of a batch.
template <class Half>
class Summed {
 public:
  Summed(void* stored, int64_t size) : total_(stored, size, 1), sum_(total_.get(), size) {}
  float* get(bool first_part) const { return sum_.get(first_part); }
  void add(bool first_part, Runner& runner) const { sum_.add(first_part, runner); }
  void write(Runner& runner) const { total_.write(0, 1, runner); }

 private:
  Narrowed<Half> total_;
  PartSum<float> sum_;
};

template <class Half>
void half_forward(const Geometry& g, const Forward& args, Runner& runner) {
  const int64_t cm = g.c * g.m, taps = g.kh * g.kw * cm;
  const int64_t filters = args.mixes() ? args.filters : cm;
  const int64_t weights = args.mixes() ? args.depth(g) * filters : 0;
  const int64_t in = g.h * g.w * g.c, out = g.ho * g.wo * filters;
  const int64_t image = in + out + (args.residual == nullptr ? 0 : out);
  const int64_t together = units_together(g.n, image, weights, tuning::kHalfPartElements);
  const Widened<Half> kernel(args.depthwise_kernel, taps, 1);
  const Widened<Half> depthwise_bias(args.depthwise_bias, cm, 1);
  const Widened<Half> pointwise(args.packed_kernel != nullptr ? nullptr : args.pointwise_kernel,
                                weights, 1);
  const Widened<Half> bias(args.bias, filters, 1);
  const Widened<Half> x(args.x, in, together);
  const Widened<Half> residual(args.residual, out, together);
  const Narrowed<Half> y(args.y, out, together);
  Forward wide = args;
  wide.depthwise_kernel = kernel.read(0, 1, runner);
  wide.depthwise_bias = depthwise_bias.read(0, 1, runner);
  wide.pointwise_kernel = pointwise.read(0, 1, runner);
  wide.bias = bias.read(0, 1, runner);
  wide.y = y.get();
  Geometry part = g;
  each_part(g.n, together, [&](int64_t first, int64_t count, bool) {
    part.n = count;
    wide.x = x.read(first, count, runner);
    wide.residual = residual.read(first, count, runner);
    f32_kernels().forward(part, wide, runner);
    y.write(first, count, runner);
  });
}

template <class Half>
void half_backward(const Geometry& g, const Backward& args, Runner& runner) {
  const int64_t cm = g.c * g.m, taps = g.kh * g.kw * cm;
  const int64_t filters = args.separable() ? args.filters : cm;
  const int64_t weights = args.separable() ? cm * filters : 0;
  const int64_t in = g.h * g.w * g.c, out = g.ho * g.wo * filters;
  // Only the kernels' gradients need x, but a caller may give it without asking for them.
  const void* images = args.ddepthwise == nullptr && args.dpointwise == nullptr ? nullptr : args.x;
  const int64_t image = (images == nullptr ? 0 : in) + out + (args.dx == nullptr ? 0 : in);
  const int64_t together = units_together(g.n, image, weights, tuning::kHalfPartElements);
  const Widened<Half> kernel(args.depthwise_kernel, taps, 1);
  const Widened<Half> pointwise(args.pointwise_kernel, weights, 1);
  const Widened<Half> x(images, in, together), dy(args.dy, out, together);
  const Narrowed<Half> dx(args.dx, in, together);
  const Summed<Half> ddepthwise(args.ddepthwise, taps);
  const Summed<Half> dpointwise(args.dpointwise, weights);
  const Summed<Half> dbias(args.dbias, filters);
  const Summed<Half>* const sums[] = {&ddepthwise, &dpointwise, &dbias};
  Backward wide = args;
  wide.depthwise_kernel = kernel.read(0, 1, runner);
  wide.pointwise_kernel = pointwise.read(0, 1, runner);
  wide.dx = dx.get();
  Geometry part = g;
  each_part(g.n, together, [&](int64_t first, int64_t count, bool first_part) {
    part.n = count;
    wide.x = x.read(first, count, runner);
    wide.dy = dy.read(first, count, runner);
    wide.ddepthwise = ddepthwise.get(first_part);
    wide.dpointwise = dpointwise.get(first_part);
    wide.dbias = dbias.get(first_part);
    f32_kernels().backward(part, wide, runner);
    dx.write(first, count, runner);
    for (const Summed<Half>* sum : sums) sum->add(first_part, runner);
  });
  for (const Summed<Half>* sum : sums) sum->write(runner);
}

Plan plan(const Geometry& g, const Operation& operation, int64_t threads) {
  return f32_kernels().plan(g, operation, threads);
}

int64_t burst(int64_t rounds, void* sink) { return fma_burst(rounds, static_cast<float*>(sink)); }

template <class Half>
constexpr KernelTable half_table() {
  return {.forward = &half_forward<Half>,
          .backward = &half_backward<Half>,
          .pointwise_forward = &product<Half>,
          .pointwise_backward = &product_backward<Half>,
          .plan = &plan,
          .plan_pointwise = &plan_pointwise<Half>,
          .packed_bytes = &packed_bytes<Half>,
          .pack_kernel = &pack_kernel<Half>,
          .fma_burst = &burst,
          .batch_norm_forward = &batch_norm_forward<Half>,
          .batch_norm_backward = &batch_norm_backward<Half>};
}

}  // namespace

void replace_bf16(KernelTable& table) { table = half_table<BFloat16>(); }
void replace_f16(KernelTable& table) { table = half_table<Float16>(); }

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
