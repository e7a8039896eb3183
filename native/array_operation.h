// What the operations between convolutions are: an element at a time, over windows, along axes, and
// moves of elements. How one is called is in dispatch.h.
//
// Every buffer is dense, in C order, and all of an operation's have one dtype, but where it says
// so. Which operations there are of which dtype is in dispatch.h.
// Sizes are in elements. An output may be the same buffer as an input where that is said, and else
// shares no memory with one.
#pragma once
#include <cstdint>

#include "geometry.h"

namespace sepconv {

// The most axes of an array.
inline constexpr int kMostAxes = 8;

// In the order of UNARY in src/sepconv/program/network.py, which says what they compute.
enum class Unary : int32_t {
  relu,
  sigmoid,
  hard_sigmoid,
  silu,
  hard_silu,
  tanh,
  gelu,
  gelu_tanh,
  elu,
  selu,
  celu,
  softplus,
  softsign,
  mish,
  exp,
  log,
  sqrt,
  rsqrt,
  square,
  abs,
  negative,
  reciprocal,
  erf,
  sin,
  cos,
  floor,
  ceil,
  round,
  sign,
  clip,
  linear,
  soft_shrink,
  hard_shrink,
  threshold,
  squareplus,
  sparse_plus
};
// y = function(x); y may be x.
struct UnaryStep {
  Unary function;
  double a, b, c;
  const void* x;
  void* y;
  int64_t count;
};

// In the order of BINARY there.
enum class Binary : int32_t { add, subtract, multiply, divide, maximum, minimum, power };
// y[i] = function(a[i], b[i]) over `shape`, where a and b have strides of their own: 0 along axes
// that they are broadcast over. y is dense, and may be an input whose strides are those of y.
struct BinaryStep {
  Binary function;
  const void *a, *b;
  void* y;
  int rank;
  int64_t shape[kMostAxes], a_strides[kMostAxes], b_strides[kMostAxes];
};

// y = x * scale + shift over [outer, channels, inner]; y may be x. Null: ones, zeros.
struct ScaleStep {
  const void *x, *scale, *shift;
  void* y;
  int64_t outer, channels, inner;
};

// The largest or the mean of a window, of the pixels inside the image. The geometry is that of a
// depthwise kernel [kh, kw, c, 1].
struct PoolStep {
  bool average;
  const void* x;
  void* y;
};

// Over the middle axis of [outer, count, inner]. Sums go in the order of memory, whatever the
// threads.
enum class Reduction : int32_t { mean, max, min, sum };
struct ReduceStep {
  Reduction function;
  const void* x;
  void* y;  // [outer, inner]
  int64_t outer, count, inner;
};

// e^x / sum(e^x) along the middle axis, or its logarithm; y may be x.
struct SoftmaxStep {
  bool logarithm;
  const void* x;
  void* y;
  int64_t outer, count, inner;
};

// Rows of `count` elements, to mean 0 and variance 1, then * gamma + beta; y may be x.
struct LayerNormStep {
  const void *x, *gamma, *beta;  // gamma and beta: [count]; null: ones, zeros
  void* y;
  int64_t rows, count;
  double epsilon;  // added to the variance
};

// Images enlarged by whole factors: [images, h, w, channels], or [images, channels, h, w].
struct ResizeStep {
  bool bilinear, channels_first;
  const void* x;
  void* y;
  int64_t images, h, w, channels;
  int64_t factor_h, factor_w;
};

// y[i * y_strides] = x[i * x_strides] over `shape`; all strides in elements, from where x and y
// point. For transposing, slicing, padding and concatenating.
struct CopyStep {
  const void* x;
  void* y;
  int rank;
  int64_t shape[kMostAxes], x_strides[kMostAxes], y_strides[kMostAxes];
};

// y = value.
struct FillStep {
  double value;
  void* y;
  int64_t count;
};

// y = x as float32, or x of float32 rounded to the nearest, ties to even; NaN stays NaN.
struct CastStep {
  bool widens;  // to float32
  const void* x;
  void* y;
  int64_t count;
};

}  // namespace sepconv
