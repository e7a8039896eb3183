// Convolutions of int8 for Python: weights that are packed once, called on arrays of bytes.
#include "bind_quantized.h"

#include <nanobind/stl/array.h>

#include <array>
#include <stdexcept>

#include "bind_buffer.h"
#include "gil.h"
#include "quantized.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using sepconv::Buffer;
using sepconv::DType;

// What follows the sums of a kernel, as Python gives it.
class Rounding {
 public:
  // `whole` has a zero point, and the bounds of what is rounded.
  Rounding(nb::handle bias, nb::handle scale, nb::handle table, std::array<int32_t, 3> whole,
           int64_t channels)
      : bias_("bias", bias, channels, DType::i32, false),
        scale_("scale", scale, channels, DType::f32, false),
        table_("table", table, 256, DType::u8, false),
        whole_(whole) {}
  sepconv::Requantize get() const {
    return {static_cast<const int32_t*>(bias_.get()),
            static_cast<const float*>(scale_.get()),
            static_cast<const uint8_t*>(table_.get()),
            whole_[0],
            whole_[1],
            whole_[2]};
  }

 private:
  Buffer bias_, scale_, table_;
  std::array<int32_t, 3> whole_;
};

// `sizes` has a kernel's height and width, channels and depth multiplier, and filters, 0 of a
// depthwise kernel alone; `steps` has strides and dilations.
sepconv::PreparedQuantized prepare(std::array<int64_t, 5> sizes, std::array<int64_t, 4> steps,
                                   nb::handle depthwise_kernel, nb::handle depthwise_bias,
                                   nb::handle depthwise_scale, nb::handle depthwise_table,
                                   std::array<int32_t, 3> depthwise_rounding,
                                   nb::handle pointwise_kernel, nb::handle bias, nb::handle scale,
                                   nb::handle table, std::array<int32_t, 3> rounding,
                                   int32_t input_zero_point, int32_t residual_zero_point,
                                   float residual_scale) {
  sepconv::QuantizedWeights w;
  w.kh = sizes[0], w.kw = sizes[1], w.c = sizes[2], w.m = sizes[3], w.filters = sizes[4];
  w.sh = steps[0], w.sw = steps[1], w.dh = steps[2], w.dw = steps[3];
  for (const int64_t size : {w.kh, w.kw, w.c, w.m, w.sh, w.sw, w.dh, w.dw})
    if (size < 1) throw std::invalid_argument("Sizes, strides and dilations must be positive.");
  const bool depthwise = !depthwise_kernel.is_none();
  if ((w.filters > 0) == pointwise_kernel.is_none() || (!depthwise && !w.mixes()))
    throw std::invalid_argument("There are filters where there is a pointwise_kernel, or none.");
  if ((depthwise && depthwise_scale.is_none()) || (w.mixes() && scale.is_none()))
    throw std::invalid_argument("A kernel needs its scale.");
  const int64_t mixed = depthwise ? w.middle() : w.kh * w.kw * w.c;
  const Buffer first("depthwise_kernel", depthwise_kernel, w.kh * w.kw * w.middle(), DType::i8,
                     false);
  const Buffer second("pointwise_kernel", pointwise_kernel, mixed * w.filters, DType::i8, false);
  const Rounding between(depthwise_bias, depthwise_scale, depthwise_table, depthwise_rounding,
                         w.middle());
  const Rounding last(bias, scale, table, rounding, w.filters);
  w.depthwise_kernel = static_cast<const int8_t*>(first.get());
  w.pointwise_kernel = static_cast<const int8_t*>(second.get());
  w.depthwise = between.get();
  w.output = last.get();
  w.input_zero_point = input_zero_point;
  w.residual_zero_point = residual_zero_point;
  w.residual_scale = residual_scale;
  return sepconv::PreparedQuantized(w);
}

void forward(const sepconv::PreparedQuantized& prepared, const sepconv::Geometry& g, nb::handle x,
             nb::handle residual, nb::handle y) {
  const sepconv::QuantizedWeights& w = prepared.weights();
  // A geometry has 1 for strides and dilations without an effect.
  const bool strides = (g.ho == 1 || g.sh == w.sh) && (g.wo == 1 || g.sw == w.sw);
  const bool dilations = (g.kh == 1 || g.dh == w.dh) && (g.kw == 1 || g.dw == w.dw);
  if (g.kh != w.kh || g.kw != w.kw || g.c != w.c || g.m != w.m || !strides || !dilations)
    throw std::invalid_argument("The geometry is not that of the prepared weights.");
  if (!residual.is_none() && !w.mixes())
    throw std::invalid_argument("A residual comes with a kernel that mixes channels.");
  const int64_t out = g.n * g.ho * g.wo * w.outputs();
  const Buffer bx("x", x, g.n * g.h * g.w * g.c, DType::u8, false);
  const Buffer br("residual", residual, out, DType::u8, false);
  const Buffer by("out", y, out, DType::u8, true);
  by.check_apart({&bx, &br});
  const sepconv::WithoutGil unlocked;
  prepared.forward(g, static_cast<const uint8_t*>(bx.get()), static_cast<const uint8_t*>(br.get()),
                   static_cast<uint8_t*>(by.get()), sepconv::pool());
}

}  // namespace

void bind_quantized(nb::module_& m) {
  nb::class_<sepconv::PreparedQuantized>(m, "PreparedQuantized")
      .def("forward", &forward, "geometry"_a, "x"_a, "residual"_a.none(), "y"_a);
  m.def("prepare_quantized", &prepare, "sizes"_a, "steps"_a, "depthwise_kernel"_a.none(),
        "depthwise_bias"_a.none(), "depthwise_scale"_a.none(), "depthwise_table"_a.none(),
        "depthwise_rounding"_a, "pointwise_kernel"_a.none(), "bias"_a.none(), "scale"_a.none(),
        "table"_a.none(), "rounding"_a, "input_zero_point"_a, "residual_zero_point"_a,
        "residual_scale"_a);
}
