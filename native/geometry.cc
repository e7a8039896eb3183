// Resolves a Spec against shapes: the one place where padding and output sizes are computed.
#include "geometry.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>

namespace sepconv {
namespace {

std::string shape_text(const int64_t s[4]) {
  std::ostringstream out;
  out << '(' << s[0] << ", " << s[1] << ", " << s[2] << ", " << s[3] << ')';
  return out.str();
}

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

// Throws where a product of sizes is so large that its bytes (8 for an element, times 8 for the
// copies that kernels make) would not fit 63 bits.
void require_addressable(const char* what, std::initializer_list<int64_t> sizes) {
  int64_t product = 64;
  for (int64_t size : sizes)
    if (size != 0 && __builtin_mul_overflow(product, size, &product))
      fail(std::string(what) + " would have more elements than memory can address.");
}

struct Axis {
  int64_t out, before;
};

Axis resolve_axis(const char* name, int64_t size, int64_t kernel, int64_t stride, int64_t dilation,
                  bool same, int64_t before, int64_t after) {
  int64_t reach, padded;
  if (__builtin_mul_overflow(kernel - 1, dilation, &reach) ||
      __builtin_add_overflow(reach, int64_t{1}, &reach))
    fail(std::string("The dilated kernel's ") + name + " overflows: kernel size " +
         std::to_string(kernel) + ", dilation_rate " + std::to_string(dilation) + ".");
  if (same) {
    int64_t out = (size - 1) / stride + 1;  // ceil(size / stride)
    int64_t spare = (out - 1) * stride;     // < size, so it cannot overflow
    int64_t total = std::max<int64_t>(reach - (size - spare), 0);
    return {out, total / 2};  // TensorFlow's rule: an odd pixel goes after the image
  }
  if (__builtin_add_overflow(size, before, &padded) ||
      __builtin_add_overflow(padded, after, &padded))
    fail(std::string("padding along the ") + name + " overflows.");
  if (padded < reach)
    fail(std::string("The output would be empty: the input's ") + name + " is " +
         std::to_string(size) + " (" + std::to_string(padded) +
         " with padding), smaller than the kernel's reach of " + std::to_string(reach) +
         " (kernel size " + std::to_string(kernel) + ", dilation_rate " + std::to_string(dilation) +
         "). Use padding='same', a smaller kernel or a larger input.");
  return {(padded - reach) / stride + 1, before};
}

}  // namespace

Geometry resolve(const Spec& spec, const int64_t x_shape[4], const int64_t kernel_shape[4]) {
  const bool first = spec.channels_first != 0;
  Geometry g{};
  g.channels_first = first;
  g.n = x_shape[0];
  g.h = x_shape[first ? 2 : 1];
  g.w = x_shape[first ? 3 : 2];
  g.c = x_shape[first ? 1 : 3];
  g.kh = kernel_shape[0];
  g.kw = kernel_shape[1];
  g.m = kernel_shape[3];
  g.sh = spec.stride_h;
  g.sw = spec.stride_w;
  g.dh = spec.dilation_h;
  g.dw = spec.dilation_w;
  if (g.n < 0 || g.h <= 0 || g.w <= 0 || g.c <= 0)
    fail("The input's height, width and channels must be positive. Received: x.shape=" +
         shape_text(x_shape) + " with data_format='" +
         (first ? "channels_first" : "channels_last") + "'.");
  if (g.kh <= 0 || g.kw <= 0 || kernel_shape[2] <= 0 || g.m <= 0)
    fail(
        "depthwise_kernel must have positive sizes (kernel_height, kernel_width, channels, "
        "depth_multiplier). Received: depthwise_kernel.shape=" +
        shape_text(kernel_shape) + ".");
  if (kernel_shape[2] != g.c)
    fail("depthwise_kernel's third axis must equal the input's channels. Received: x.shape=" +
         shape_text(x_shape) + " with data_format='" +
         (first ? "channels_first" : "channels_last") + "', so " + std::to_string(g.c) +
         " channels, and depthwise_kernel.shape=" + shape_text(kernel_shape) + ".");
  if (g.sh <= 0 || g.sw <= 0 || g.dh <= 0 || g.dw <= 0)
    fail("strides and dilation_rate must be positive.");
  if (spec.pad_top < 0 || spec.pad_bottom < 0 || spec.pad_left < 0 || spec.pad_right < 0)
    fail("padding must not be negative.");
  const Axis rows =
      resolve_axis("height", g.h, g.kh, g.sh, g.dh, spec.same != 0, spec.pad_top, spec.pad_bottom);
  const Axis columns =
      resolve_axis("width", g.w, g.kw, g.sw, g.dw, spec.same != 0, spec.pad_left, spec.pad_right);
  g.ho = rows.out;
  g.pt = rows.before;
  g.wo = columns.out;
  g.pl = columns.before;
  // A stride that has no effect must cost nothing: kernels have loops and scratch memory of its
  // size.
  if (g.ho == 1) g.sh = 1;
  if (g.wo == 1) g.sw = 1;
  if (g.kh == 1) g.dh = 1;
  if (g.kw == 1) g.dw = 1;
  require_addressable("The input", {g.n, g.h, g.w, g.c});
  require_addressable("depthwise_kernel", {g.kh, g.kw, g.c, g.m});
  require_addressable("The output", {g.n, g.ho, g.wo, g.c, g.m});
  require_addressable("The padded input",
                      {g.h + (g.ho - 1) * g.sh + (g.kh - 1) * g.dh + 1,
                       g.w + (g.wo - 1) * g.sw + (g.kw - 1) * g.dw + 1, g.c, g.m});
  return g;
}

}  // namespace sepconv
