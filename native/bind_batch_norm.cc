// Batch normalization in training for Python, alone and with the convolution before it.
#include "bind_batch_norm.h"

#include "bind_buffer.h"
#include "dispatch.h"
#include "gil.h"
#include "normalized.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using sepconv::Buffer;
using sepconv::DType;

void forward(int64_t outer, int64_t channels, int64_t inner, double epsilon, int activation,
             int dtype, nb::handle x, nb::handle gamma, nb::handle beta, nb::handle y,
             nb::handle mean, nb::handle variance) {
  const DType type = sepconv::dtype_of(dtype), real = sepconv::real_dtype(type);
  const int64_t size = outer * channels * inner;
  Buffer bx("x", x, size, type, false);
  Buffer bg("gamma", gamma, channels, real, false);
  Buffer bb("beta", beta, channels, real, false);
  Buffer by("y", y, size, type, true);
  Buffer bm("mean", mean, channels, real, true);
  Buffer bv("variance", variance, channels, real, true);
  const sepconv::BatchNorm sizes{outer, channels, inner, epsilon,
                                 sepconv::activation_of(activation)};
  const sepconv::WithoutGil unlocked;
  sepconv::batch_norm_forward(type, sizes,
                              {.x = bx.get(),
                               .gamma = bg.get(),
                               .beta = bb.get(),
                               .y = by.get(),
                               .mean = bm.get(),
                               .variance = bv.get()},
                              sepconv::pool());
}

// The operands of the gradients of any batch normalization.
class Gradients {
 public:
  Gradients(const sepconv::BatchNorm& s, DType type, nb::handle x, nb::handle gamma,
            nb::handle beta, nb::handle mean, nb::handle variance, nb::handle dy, nb::handle dgamma,
            nb::handle dbeta)
      : Gradients(s.outer * s.channels * s.inner, s.channels, type, sepconv::real_dtype(type), x,
                  gamma, beta, mean, variance, dy, dgamma, dbeta) {}
  sepconv::BatchNormBackward args(void* dx) const {
    return {.x = x_.get(),
            .gamma = gamma_.get(),
            .beta = beta_.get(),
            .mean = mean_.get(),
            .variance = variance_.get(),
            .dy = dy_.get(),
            .dx = dx,
            .dgamma = dgamma_.get(),
            .dbeta = dbeta_.get()};
  }

 private:
  Gradients(int64_t size, int64_t channels, DType type, DType real, nb::handle x, nb::handle gamma,
            nb::handle beta, nb::handle mean, nb::handle variance, nb::handle dy, nb::handle dgamma,
            nb::handle dbeta)
      : x_("x", x, size, type, false),
        gamma_("gamma", gamma, channels, real, false),
        beta_("beta", beta, channels, real, false),
        mean_("mean", mean, channels, real, false),
        variance_("variance", variance, channels, real, false),
        dy_("dy", dy, size, type, false),
        dgamma_("dgamma", dgamma, channels, real, true),
        dbeta_("dbeta", dbeta, channels, real, true) {}
  const Buffer x_, gamma_, beta_, mean_, variance_, dy_, dgamma_, dbeta_;
};

void backward(int64_t outer, int64_t channels, int64_t inner, double epsilon, int activation,
              int dtype, nb::handle x, nb::handle gamma, nb::handle beta, nb::handle mean,
              nb::handle variance, nb::handle dy, nb::handle dx, nb::handle dgamma,
              nb::handle dbeta) {
  const DType type = sepconv::dtype_of(dtype);
  const sepconv::BatchNorm sizes{outer, channels, inner, epsilon,
                                 sepconv::activation_of(activation)};
  const Gradients norm(sizes, type, x, gamma, beta, mean, variance, dy, dgamma, dbeta);
  Buffer bdx("dx", dx, outer * channels * inner, type, true);
  const sepconv::WithoutGil unlocked;
  sepconv::batch_norm_backward(type, sizes, norm.args(bdx.get()), sepconv::pool());
}

// `convolution` is a Geometry of a depthwise one, or a Pointwise; its tensors have so many
// elements.
template <class Convolution>
void normalized(const Convolution& convolution, int64_t inputs, int64_t weights,
                const sepconv::BatchNorm& sizes, int dtype, nb::handle x, nb::handle kernel,
                nb::handle v, nb::handle gamma, nb::handle beta, nb::handle mean,
                nb::handle variance, nb::handle dy, nb::handle dx, nb::handle dkernel,
                nb::handle dgamma, nb::handle dbeta) {
  const DType type = sepconv::dtype_of(dtype);
  const Gradients norm(sizes, type, v, gamma, beta, mean, variance, dy, dgamma, dbeta);
  Buffer bx("x", x, inputs, type, false);
  Buffer bk("kernel", kernel, weights, type, false);
  Buffer bdx("dx", dx, inputs, type, true);
  Buffer bdk("dkernel", dkernel, weights, type, true);
  const sepconv::NormalizedBackward args{.x = bx.get(),
                                         .kernel = bk.get(),
                                         .norm = norm.args(nullptr),
                                         .dx = bdx.get(),
                                         .dkernel = bdk.get()};
  const sepconv::WithoutGil unlocked;
  sepconv::normalized_backward(type, convolution, sizes, args, sepconv::pool());
}

void normalized_depthwise(const sepconv::Geometry& g, double epsilon, int activation, int dtype,
                          nb::handle x, nb::handle kernel, nb::handle v, nb::handle gamma,
                          nb::handle beta, nb::handle mean, nb::handle variance, nb::handle dy,
                          nb::handle dx, nb::handle dkernel, nb::handle dgamma, nb::handle dbeta) {
  const int64_t channels = g.c * g.m;
  normalized(g, g.n * g.h * g.w * g.c, g.kh * g.kw * channels,
             {g.n * g.ho * g.wo, channels, 1, epsilon, sepconv::activation_of(activation)}, dtype,
             x, kernel, v, gamma, beta, mean, variance, dy, dx, dkernel, dgamma, dbeta);
}

void normalized_pointwise(int64_t pixels, int64_t channels, int64_t filters, double epsilon,
                          int activation, int dtype, nb::handle x, nb::handle kernel, nb::handle v,
                          nb::handle gamma, nb::handle beta, nb::handle mean, nb::handle variance,
                          nb::handle dy, nb::handle dx, nb::handle dkernel, nb::handle dgamma,
                          nb::handle dbeta) {
  normalized(sepconv::Pointwise{1, pixels, channels, filters, false}, pixels * channels,
             channels * filters, {pixels, filters, 1, epsilon, sepconv::activation_of(activation)},
             dtype, x, kernel, v, gamma, beta, mean, variance, dy, dx, dkernel, dgamma, dbeta);
}

}  // namespace

void bind_batch_norm(nb::module_& m) {
  m.def("batch_norm_forward", &forward, "outer"_a, "channels"_a, "inner"_a, "epsilon"_a,
        "activation"_a, "dtype"_a, "x"_a, "gamma"_a.none(), "beta"_a.none(), "y"_a, "mean"_a,
        "variance"_a);
  m.def("batch_norm_backward", &backward, "outer"_a, "channels"_a, "inner"_a, "epsilon"_a,
        "activation"_a, "dtype"_a, "x"_a, "gamma"_a.none(), "beta"_a.none(), "mean"_a, "variance"_a,
        "dy"_a, "dx"_a, "dgamma"_a, "dbeta"_a);
  m.def("normalized_depthwise_backward", &normalized_depthwise, "geometry"_a, "epsilon"_a,
        "activation"_a, "dtype"_a, "x"_a, "kernel"_a, "v"_a, "gamma"_a.none(), "beta"_a.none(),
        "mean"_a, "variance"_a, "dy"_a, "dx"_a.none(), "dkernel"_a.none(), "dgamma"_a, "dbeta"_a);
  m.def("normalized_pointwise_backward", &normalized_pointwise, "pixels"_a, "channels"_a,
        "filters"_a, "epsilon"_a, "activation"_a, "dtype"_a, "x"_a, "kernel"_a, "v"_a,
        "gamma"_a.none(), "beta"_a.none(), "mean"_a, "variance"_a, "dy"_a, "dx"_a.none(),
        "dkernel"_a.none(), "dgamma"_a, "dbeta"_a);
}
