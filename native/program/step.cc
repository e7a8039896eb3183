// What those who write steps share: attributes of one form, and images, windows and their results.
#include "step.h"

namespace sepconv::program {

// ---- attributes

Spec Attributes::spec() {
  const std::vector<int64_t> s = list("spec");
  if (s.size() != kSpecSize) fail("spec must be 10 integers.");
  for (const int64_t value : s)
    if (value < 0) fail("spec must not be negative. Received: " + std::to_string(value) + ".");
  const Spec spec{s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9]};
  const bool pads = spec.pad_top + spec.pad_bottom + spec.pad_left + spec.pad_right != 0;
  if (spec.same > 1 || spec.channels_first > 1 || (spec.same == 1 && pads))
    fail("spec is not that of a convolution.");
  return spec;
}

HeightWidth Attributes::height_width(const char* name) {
  const std::vector<int64_t> sizes = list(name);
  if (sizes.size() != 2 || sizes[0] < 1 || sizes[1] < 1)
    fail(std::string(name) + " must be two positive integers.");
  return {sizes[0], sizes[1]};
}

std::vector<int64_t> Attributes::axes() {
  const std::vector<int64_t> axes = per_axis("axes");
  if (axes.empty()) fail("axes must not be empty.");
  for (size_t i = 0; i + 1 < axes.size(); ++i)
    if (axes[i] >= axes[i + 1]) fail("axes must be in order, each once.");
  return axes;
}

// ---- checks

void require_size(const char* name, const TensorView* tensor, int64_t size) {
  if (tensor != nullptr && !(tensor->shape == Shape{size}))
    fail(std::string(name) + " must have the shape (" + std::to_string(size) +
         ",). Received: " + tensor->shape.text() + ".");
}

void require_residual(const Shape& residual, const Shape& output) {
  if (!(residual == output))
    fail("The residual must have the shape of the output, " + output.text() +
         ". Received: " + residual.text() + ".");
}

// ---- images

Shape image(const Shape& x, bool channels_first) {
  require_rank(x, 3, 4);
  if (x.rank() == 4) return x;
  return channels_first ? Shape{x[0], x[1], 1, x[2]} : Shape{x[0], 1, x[1], x[2]};
}

Shape result_shape(const Geometry& g, int64_t channels, int rank) {
  const int64_t rows = g.ho, columns = g.wo;
  if (rank == 4)
    return g.channels_first ? Shape{g.n, channels, rows, columns}
                            : Shape{g.n, rows, columns, channels};
  return g.channels_first ? Shape{g.n, channels, columns} : Shape{g.n, columns, channels};
}

Geometry pool_geometry(const Spec& spec, const HeightWidth& window, const Shape& input) {
  const bool first = spec.channels_first != 0;
  const Shape x = image(input, first);
  const int64_t kernel[4] = {window.height, window.width, x[first ? 1 : 3], 1};
  const Geometry g = resolve(spec, x.sizes(), kernel);
  // A window that sees padding alone has no largest value and no mean.
  if (g.pt >= (g.kh - 1) * g.dh + 1 || g.pl >= (g.kw - 1) * g.dw + 1 ||
      (g.ho - 1) * g.sh - g.pt >= g.h || (g.wo - 1) * g.sw - g.pl >= g.w)
    fail("A window of the pool lies in the padding alone.");
  return g;
}

Geometry dense_geometry(const Shape& x, int64_t depth) {
  require_rank(x, 1, kMostAxes);
  if (x.last() != depth)
    fail("The last axis must have " + std::to_string(depth) + " elements. Received: shape " +
         x.text() + ".");
  const int64_t rows = x.product(0, x.rank() - 1);
  Geometry g{};
  g.n = rows == 0 ? 0 : 1;
  g.h = g.ho = g.kh = g.kw = g.m = g.sh = g.sw = g.dh = g.dw = 1;
  g.w = g.wo = rows;
  g.c = depth;
  return g;
}

}  // namespace sepconv::program
