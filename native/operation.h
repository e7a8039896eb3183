// What an operation is: its sizes, operands and results. How one is called is in dispatch.h.
//
// Operands have one order everywhere, in these structs, the bindings and Python: x,
// depthwise_kernel, depthwise_bias, pointwise_kernel, bias, residual; then what comes out.
// Every buffer is dense, in C order, and all of an operation's have one dtype, but where it says
// so.
#pragma once
#include <cstdint>

#include "geometry.h"
#include "plan.h"

namespace sepconv {

// The half types are storage formats: sums are float32's, rounded once. Convolutions are of the
// first four; integers are values and weights of programs.
enum class DType : int32_t { f32 = 0, f64 = 1, bf16 = 2, f16 = 3, u8 = 4, i8 = 5, i32 = 6 };
constexpr int64_t itemsize(DType dtype) {
  constexpr int64_t kBytes[] = {4, 8, 2, 2, 1, 1, 4};
  return kBytes[static_cast<int>(dtype)];
}
enum class Activation : int32_t { none = 0, relu = 1, relu6 = 2, hard_silu = 3, silu = 4 };

// Bits for the operands that a call has, or the gradients that it wants, in the operands' order.
// Engines hand them over as one integer.
constexpr int64_t kX = 1, kDepthwise = 2, kDepthwiseBias = 4, kPointwise = 8, kBias = 16,
                  kResidual = 32;

// Shapes, where C = g.c, M = g.m and CM = C * M; channels_first moves the last axis to the second:
//   x [n, h, w, C]   depthwise_kernel [kh, kw, C, M]   pointwise_kernel [CM, filters]
//   y, residual, dy [n, ho, wo, filters], or [n, ho, wo, CM] of a depthwise step alone
//   depthwise_bias [CM]   bias [filters] or [CM]
//
// A convolution is separable where it has both kernels: a pointwise step follows the depthwise one.
// Without a depthwise kernel it is an ordinary one: the kernel that mixes channels is then
//   pointwise_kernel [kh, kw, C, filters]
// and the geometry that of a depthwise kernel [kh, kw, C, 1].

// y = activation(pointwise(depthwise_activation(depthwise(x) + depthwise_bias)) + bias + residual),
// or activation(depthwise(x) + bias), or activation(ordinary(x) + bias + residual).
struct Forward {
  const void* x = nullptr;
  const void* depthwise_kernel = nullptr;  // null: an ordinary convolution
  const void* depthwise_bias = nullptr;    // null: none; of a separable convolution only
  const void* pointwise_kernel = nullptr;
  const void* bias = nullptr;      // null: none
  const void* residual = nullptr;  // null: none; not of a depthwise step alone
  void* y = nullptr;
  int64_t filters = 0;                                 // 0: the depthwise step alone
  Activation depthwise_activation = Activation::none;  // of a separable convolution only
  Activation activation = Activation::none;
  // The output of pack_pointwise_kernel(); pointwise_kernel is then not read.
  const void* packed_kernel = nullptr;
  Overrule overrule = {};  // for benchmarks

  bool mixes() const { return filters != 0; }  // has a kernel that mixes channels
  // The rows of that kernel as a matrix: of how many products each of its outputs is the sum.
  int64_t depth(const Geometry& g) const {
    return depthwise_kernel != nullptr ? g.c * g.m : g.kh * g.kw * g.c;
  }
};

// Gradients of sum(y * dy), where y has no activation. Each output may be null and is then not
// computed; an input that only such outputs need may be null too: x is needed for every gradient
// but dx and dbias, depthwise_kernel for dx and dpointwise, pointwise_kernel for dx and ddepthwise
// of a separable convolution.
struct Backward {
  const void* x = nullptr;
  const void* depthwise_kernel = nullptr;
  const void* pointwise_kernel = nullptr;
  const void* dy = nullptr;
  void* dx = nullptr;
  void* ddepthwise = nullptr;
  void* dpointwise = nullptr;
  void* dbias = nullptr;
  int64_t filters = 0;  // 0: the depthwise step alone

  bool separable() const { return filters != 0; }
};

// The sizes of a 1x1 product alone, over `images` images of `pixels` pixels: x [images, pixels,
// channels], pointwise_kernel [channels, filters], y [images, pixels, filters]; channels_first
// moves the last axis of x, y and residual to the second.
struct Pointwise {
  int64_t images, pixels, channels, filters;
  bool channels_first;
};
struct PointwiseForward {
  const void* x = nullptr;
  const void* pointwise_kernel = nullptr;
  const void* bias = nullptr;      // null: none
  const void* residual = nullptr;  // null: none
  void* y = nullptr;
  Activation activation = Activation::none;
  const void* packed_kernel = nullptr;  // as in Forward
};
// As `Backward`: null outputs are skipped.
struct PointwiseBackward {
  const void* x = nullptr;
  const void* pointwise_kernel = nullptr;
  const void* dy = nullptr;
  void* dx = nullptr;
  void* dpointwise = nullptr;
  void* dbias = nullptr;
};

// Batch normalization in training, and the activation after it: over an array [outer, channels,
// inner], where channels_last is an inner of 1. Vectors of a number a channel are float32 where
// arrays are of a half type.
struct BatchNorm {
  int64_t outer, channels, inner;
  double epsilon;  // added to the variance
  Activation activation = Activation::none;
};
struct BatchNormForward {
  const void* x = nullptr;
  const void *gamma = nullptr, *beta = nullptr;  // [channels]; null: ones, zeros
  void* y = nullptr;                             // null: mean and variance alone
  // [channels], of x; the variance is not Bessel's. NaN where x is empty.
  void *mean = nullptr, *variance = nullptr;
};
// Gradients of sum(y * dy), from the forward's mean and variance.
struct BatchNormBackward {
  const void *x = nullptr, *gamma = nullptr;
  const void* beta = nullptr;  // read where there is an activation
  const void *mean = nullptr, *variance = nullptr, *dy = nullptr;
  void* dx = nullptr;  // null: the other two alone
  void *dgamma = nullptr, *dbeta = nullptr;
};

// Gradients of sum(y * dy), where y is what a batch normalization, and the activation after it,
// make of the result of a depthwise or a 1x1 convolution without bias, all with the channels last.
struct NormalizedBackward {
  const void* x = nullptr;       // of the convolution
  const void* kernel = nullptr;  // [kh, kw, C, M] or, of a 1x1 convolution, [filters, channels]
  // x is the convolution's result; dx is not read.
  BatchNormBackward norm = {};
  void *dx = nullptr, *dkernel = nullptr;  // of the convolution; null: not wanted
};

}  // namespace sepconv
