// Checks the gradients of a convolution and the batch normalization after it, and calls the
// kernels.
#include "normalized.h"

#include <cstring>
#include <stdexcept>

#include "dispatch.h"
#include "kernels/kernel_table.h"

namespace sepconv {
namespace {

// Throws where `s` does not normalize the convolution's result, of so many rows and channels.
void check(DType dtype, const BatchNorm& s, bool channels_first, int64_t rows, int64_t channels) {
  if (dtype != DType::f32 && dtype != DType::f64)
    throw std::invalid_argument("float32 or float64 was expected.");
  if (channels_first) throw std::invalid_argument("The channels must be the last.");
  if (s.inner != 1 || s.outer != rows || s.channels != channels)
    throw std::invalid_argument("The normalization is not of the convolution's result.");
}

// Of no pixels.
void put_zeros(DType dtype, const BatchNorm& s, const NormalizedBackward& args, int64_t weights,
               Runner& runner) {
  BatchNormBackward norm = args.norm;
  norm.dx = nullptr;
  batch_norm_backward(dtype, s, norm, runner);
  if (args.dkernel != nullptr)
    std::memset(args.dkernel, 0, static_cast<size_t>(weights * itemsize(dtype)));
}

}  // namespace

void normalized_backward(DType dtype, const Geometry& g, const BatchNorm& s,
                         const NormalizedBackward& args, Runner& runner) {
  check(dtype, s, g.channels_first, g.n * g.ho * g.wo, g.c * g.m);
  if (g.n == 0)
    put_zeros(dtype, s, args, g.kh * g.kw * g.c * g.m, runner);
  else
    kernels_for(dtype).normalized_depthwise_backward(g, s, args, runner);
}

void normalized_backward(DType dtype, const Pointwise& p, const BatchNorm& s,
                         const NormalizedBackward& args, Runner& runner) {
  check(dtype, s, p.channels_first, p.images * p.pixels, p.filters);
  if (s.outer == 0)
    put_zeros(dtype, s, args, p.channels * p.filters, runner);
  else
    kernels_for(dtype).normalized_product_backward(p, s, args, runner);
}

}  // namespace sepconv
