// The entry points that the bindings call. Every buffer is dense, in C order, of one dtype.
#pragma once
#include <cstdint>

#include "geometry.h"
#include "threads.h"

namespace sepconv {

// The half types are stored alone: sums are float32's, rounded once.
enum class DType : int32_t { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };
constexpr int64_t itemsize(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}
enum class Activation : int32_t { none = 0, relu = 1, relu6 = 2, hard_silu = 3, silu = 4 };

// Shapes, where C = g.c, M = g.m and CM = C * M; channels_first moves the last axis to the second:
//   x [n, h, w, C]   depthwise_kernel [kh, kw, C, M]   pointwise_kernel [CM, filters]
//   y, dy [n, ho, wo, filters], or [n, ho, wo, CM] where there is no pointwise kernel
//   bias [filters] or [CM]
struct Forward {
  const void* x;
  const void* depthwise_kernel;
  const void* pointwise_kernel;  // null: the depthwise step alone
  int64_t filters;               // ignored where pointwise_kernel is null
  const void* bias;              // null: none
  Activation activation;
  void* y;
  // Of a separable convolution only: what happens between its two steps, and what is added to the
  // result, of the shape of y, before `activation`.
  const void* depthwise_bias = nullptr;  // [CM]
  Activation depthwise_activation = Activation::none;
  const void* residual = nullptr;
  // The pointwise kernel as pack_pointwise_kernel() put it, which is then not read itself.
  const void* packed_kernel = nullptr;
};

// Gradients of sum(y * dy), where y has no activation. Each output may be null and is then not
// computed; an input that only such outputs need may be null too: x is needed for every gradient
// but dx and dbias, depthwise_kernel for dx and dpointwise, pointwise_kernel for dx and ddepthwise
// of a separable convolution (`separable` says which of the two it is).
struct Backward {
  const void* x;
  const void* depthwise_kernel;
  const void* pointwise_kernel;
  bool separable;
  int64_t filters;
  const void* dy;
  void* dx;
  void* ddepthwise;
  void* dpointwise;
  void* dbias;
};

// Both may be called from any number of threads at once. They throw std::bad_alloc where scratch
// memory cannot be had, and nothing else.
SEPCONV_API void forward(DType dtype, const Geometry& g, const Forward& args, Runner& runner);
SEPCONV_API void backward(DType dtype, const Geometry& g, const Backward& args, Runner& runner);

// The 1x1 product alone, over `images` images of `pixels` pixels: x [images, pixels, channels],
// kernel [channels, filters], y [images, pixels, filters]; channels_first moves the last axis of
// x and y to the second.
struct Pointwise {
  int64_t images, pixels, channels, filters;
  bool channels_first;
};
struct PointwiseForward {
  const void* x;
  const void* kernel;
  const void* bias;  // null: none
  Activation activation;
  void* y;
  const void* residual = nullptr;       // of the shape of y: added before `activation`
  const void* packed_kernel = nullptr;  // as in Forward
};
SEPCONV_API void pointwise_forward(DType dtype, const Pointwise& p, const PointwiseForward& args,
                                   Runner& runner);
// As `Backward`: null outputs are skipped.
SEPCONV_API void pointwise_backward(DType dtype, const Pointwise& p, const void* x,
                                    const void* kernel, const void* dy, void* dx, void* dkernel,
                                    void* dbias, Runner& runner);

// A pointwise kernel [channels, filters] in the order in which the products of such a layout read
// it, for who calls with the same one again and again. In the types that sums are made in: the half
// types' is float32.
SEPCONV_API int64_t packed_kernel_bytes(DType dtype, bool channels_first, int64_t channels,
                                        int64_t filters);
SEPCONV_API void pack_pointwise_kernel(DType dtype, bool channels_first, int64_t channels,
                                       int64_t filters, const void* kernel, void* packed);

// Batch normalization in training: over an array [outer, channels, inner], where channels_last is
// an inner of 1. Of float32 and float64 alone.
struct BatchNorm {
  int64_t outer, channels, inner;
  double epsilon;  // added to the variance
};
struct BatchNormForward {
  const void* x;
  const void *gamma, *beta;  // [channels]; null: ones, zeros
  void* y;                   // null: mean and variance alone
  void *mean, *variance;     // [channels], of x; the variance is not Bessel's. NaN where x is empty
};
// Gradients of sum(y * dy), from the forward's mean and variance.
struct BatchNormBackward {
  const void *x, *gamma, *mean, *variance, *dy;
  void* dx;  // null: the other two alone
  void *dgamma, *dbeta;
};
// As `forward`, they throw nothing but std::bad_alloc.
SEPCONV_API void batch_norm_forward(DType dtype, const BatchNorm& s, const BatchNormForward& args,
                                    Runner& runner);
SEPCONV_API void batch_norm_backward(DType dtype, const BatchNorm& s, const BatchNormBackward& args,
                                     Runner& runner);

// The instruction-set level in use: "x86-64-v2", "x86-64-v3", "x86-64-v4", "neon" or "generic".
// Chosen at the first call, by the processor or by the environment variable SEPCONV_ISA; throws
// std::invalid_argument where that names a level unknown or not runnable here.
SEPCONV_API const char* isa_name();

}  // namespace sepconv
