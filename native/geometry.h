// The convolution's geometry: what the user asked for (Spec), and what the kernels see (Geometry).
#pragma once
#include <cstdint>

#include "api.h"

namespace sepconv {

// The arguments that do not depend on a shape. The bindings pass it as `kSpecSize` integers in
// this order (see ConvSpec in geometry.py).
struct Spec {
  int64_t stride_h, stride_w, dilation_h, dilation_w;
  int64_t same;  // 1: 'same' padding computed from the input's size, and the four pads are 0
  int64_t pad_top, pad_bottom, pad_left, pad_right;
  int64_t channels_first;
};
inline constexpr int kSpecSize = 10;

// A Spec applied to an input and a depthwise kernel [kh, kw, c, m]. The depthwise result has c * m
// channels: input channel ci gives channels ci * m + mi.
struct Geometry {
  int64_t n, h, w, c;  // input
  int64_t kh, kw, m;   // kernel size and depth multiplier
  int64_t sh, sw, dh, dw;
  int64_t pt, pl;  // padding before the first row and column; what follows the last is implied
  int64_t ho, wo;  // output
  bool channels_first;
};

// Applies `spec` to an input and a kernel of the given 4-D shapes. Throws std::invalid_argument
// with a sentence for the user where the two do not fit each other or the output would be empty.
SEPCONV_API Geometry resolve(const Spec& spec, const int64_t x_shape[4],
                             const int64_t kernel_shape[4]);

}  // namespace sepconv
