// What the int8 operations are: values uint8, weights int8, sums int32, which are rounded to uint8
// once, or are float32 without. How one is called is in quantized.h.
//
// A value stands for scale * (q - zero point). What is padded is the zero point, so that it adds
// nothing. Every operation has the same bits on every level and any number of threads.
#pragma once
#include <cstdint>

#include "array_operation.h"
#include "geometry.h"

namespace sepconv {

// How int32 sums become uint8, by channel:
//   t = float32(sum + bias) * scale, and what a residual adds
//   q = clamp(round half to even(t), lower - zero_point, upper - zero_point) + zero_point
//   y = table[q]
// Each operation of float32 is rounded by itself.
struct Requantize {
  const int32_t* bias = nullptr;   // [channels]; null: zeros
  const float* scale = nullptr;    // [channels]
  const uint8_t* table = nullptr;  // [256]; null: none
  int32_t zero_point = 0, lower = 0, upper = 255;
};

// A convolution's weights and all else of it that is known before an image is: depthwise,
// separable, or ordinary, as operation.h has them.
struct QuantizedWeights {
  int64_t kh = 1, kw = 1, c = 0, m = 1;  // m: 1 without a depthwise kernel
  int64_t sh = 1, sw = 1, dh = 1, dw = 1;
  int64_t filters = 0;                       // 0: the depthwise step alone
  const int8_t* depthwise_kernel = nullptr;  // [kh, kw, c, m]
  const int8_t* pointwise_kernel = nullptr;  // [c * m, filters], or [kh, kw, c, filters]
  int32_t input_zero_point = 0;
  Requantize depthwise = {}, output = {};  // `output` of what mixes channels
  int32_t residual_zero_point = 0;
  float residual_scale = 0;
  // Whether a scale of the depthwise step is so large that its results may leave int32.
  bool depthwise_large = false;

  bool is_depthwise() const { return depthwise_kernel != nullptr; }
  bool mixes() const { return filters != 0; }
  int64_t middle() const { return c * m; }
  // Of how many products a sum of the mixing kernel is.
  int64_t depth() const { return is_depthwise() ? middle() : kh * kw * c; }
  int64_t outputs() const { return mixes() ? filters : middle(); }
};

// `packed` is what pack() of the same level made of the weights, whose own tensors are not read.
// Y is uint8_t; or float, of a convolution that mixes channels and has no table: its results are
//   y = float32(sum + bias) * scale
// then, one product, and no byte is rounded to.
template <class Y>
struct QuantizedForward {
  const void* packed = nullptr;
  const uint8_t* x = nullptr;
  // Null: none. Only bytes have one, and only where the convolution mixes channels.
  const uint8_t* residual = nullptr;
  Y* y = nullptr;
};

// How a convolution goes, to look at: what runs over tasks at once, in one step or two.
struct QuantizedPlan {
  enum class Kind : int32_t { depthwise, product, tiles, patches };
  enum class Kernel : int32_t { none, small, loops, table };  // of the depthwise step
  struct Step {
    Kind kind;
    Kernel kernel;
    int64_t tile_rows, tile_columns;  // outputs that a small kernel's sums in registers are of
    int64_t tasks;
    int64_t rows, filters;  // the most of a task; of products pixels, else rows of outputs
  };
  Step steps[2];
  int64_t count;
};

// y = clamp(round half to even(x * multiplier), -zero_point, 255 - zero_point) + zero_point; NaN
// becomes the zero point.
struct QuantizeStep {
  float multiplier;
  int32_t zero_point;
  const float* x;
  uint8_t* y;
  int64_t count;
};

// y = float32(x - zero_point) * scale.
struct DequantizeStep {
  float scale;
  int32_t zero_point;
  const uint8_t* x;
  float* y;
  int64_t count;
};

// y = table[x]; y may be x.
struct LookupStep {
  const uint8_t *table, *x;
  uint8_t* y;
  int64_t count;
};

// Of a and b broadcast as in BinaryStep: t = float32(a - za) * a_scale + float32(b - zb) * b_scale,
// or t = float32((a - za) * (b - zb)) * a_scale; then rounded as above.
enum class QuantizedBinary : int32_t { add, multiply };
struct QuantizedBinaryStep {
  QuantizedBinary function;
  int32_t a_zero_point, b_zero_point;
  float a_scale, b_scale;
  int32_t zero_point, lower, upper;
  const uint8_t *a, *b;
  uint8_t* y;
  int rank;
  int64_t shape[kMostAxes], a_strides[kMostAxes], b_strides[kMostAxes];
};

// t = float32(sum(x - input_zero_point)) * scale over the middle axis of [outer, count, inner].
struct QuantizedMeanStep {
  int32_t input_zero_point, zero_point;
  float scale;
  const uint8_t* x;
  uint8_t* y;  // [outer, inner]
  int64_t outer, count, inner;
};

// t = float32(sum(x - input_zero_point)) * (scale / float32(number of pixels)) over windows, of the
// pixels inside the image; where there are none, t = 0.
struct QuantizedAveragePoolStep {
  int32_t input_zero_point, zero_point;
  float scale;
  const uint8_t* x;
  uint8_t* y;
};

}  // namespace sepconv
