// The steps of int8 inference but convolutions and products: to uint8 and back, an element at a
// time, means and windows. Their meaning, to the bit, is in
// src/sepconv/program/quantized_reference.py.
#include <algorithm>

#include "../dispatch.h"
#include "../quantized.h"
#include "broadcast_call.h"
#include "call_memory.h"
#include "calls.h"
#include "quantized_step.h"

namespace sepconv::program {
namespace {

// ---- an element at a time

// To uint8 or back: `function` takes `Arguments`, which begin with a factor and a zero point, and
// makes elements of To from those of From.
template <class Arguments, class From, class To, void (*function)(const Arguments&, Runner&)>
class ConvertMaker : public Step {
 public:
  ConvertMaker(const StepDescription& d, const char* factor) {
    Attributes attributes(d);
    factor_ = finite(attributes, factor);
    zero_point_ = byte(attributes, "zero_point");
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    return elements_call(
        inputs[0], false,
        [factor = factor_, zero_point = zero_point_](const void* x, void* y, int64_t count,
                                                     Runner& runner) {
          function({factor, zero_point, static_cast<const From*>(x), static_cast<To*>(y), count},
                   runner);
        });
  }
  DType gives(DType) const override { return sizeof(To) == 1 ? DType::u8 : DType::f32; }

 private:
  float factor_;
  int32_t zero_point_;
};
using QuantizeMaker = ConvertMaker<QuantizeStep, float, uint8_t, quantize>;
using DequantizeMaker = ConvertMaker<DequantizeStep, uint8_t, float, dequantize>;

class LookupMaker : public Step {
 public:
  explicit LookupMaker(const StepDescription& d) {
    Attributes attributes(d);
    const TensorView* table = attributes.tensor(DType::u8);
    if (table == nullptr) fail("A table is needed.");
    require_size("table", table, 256);
    table_ = KeptTensor(table);
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    return elements_call(
        inputs[0], true,
        [table = static_cast<const uint8_t*>(table_.get())](const void* x, void* y, int64_t count,
                                                            Runner& runner) {
          lookup({table, static_cast<const uint8_t*>(x), static_cast<uint8_t*>(y), count}, runner);
        });
  }
  int64_t weight_bytes() const override { return table_.bytes(); }

 private:
  KeptTensor table_;
};

class BinaryCall : public BroadcastCall<QuantizedBinaryStep> {
 public:
  BinaryCall(const QuantizedBinaryStep& step, const Shape& a, const Shape& b)
      : BroadcastCall(step, 1, a, b) {}

 private:
  void apply(QuantizedBinaryStep here, const void* a, const void* b, void* y,
             Runner& runner) const override {
    here.a = static_cast<const uint8_t*>(a);
    here.b = static_cast<const uint8_t*>(b);
    here.y = static_cast<uint8_t*>(y);
    quantized_binary(here, runner);
  }
};

class BinaryMaker : public Step {
 public:
  explicit BinaryMaker(const StepDescription& d) {
    Attributes attributes(d);
    step_.function = attributes.choice("function", QuantizedBinary::multiply);
    step_.a_zero_point = byte(attributes, "a_zero_point");
    step_.b_zero_point = byte(attributes, "b_zero_point");
    step_.a_scale = finite(attributes, "a_scale");
    step_.b_scale = finite(attributes, "b_scale");
    step_.zero_point = byte(attributes, "output_zero_point");
    read_bounds(attributes, step_);
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    return std::make_unique<BinaryCall>(step_, inputs[0], inputs[1]);
  }

 private:
  QuantizedBinaryStep step_{};
};

// ---- means and windows

// The mean over some axes. They are moved to the end first, where others lie between them.
class MeanCall : public Call {
 public:
  MeanCall(const QuantizedMeanStep& step, const Shape& x, const std::vector<int64_t>& axes)
      : step_(step) {
    const auto reduced = [&](int axis) {
      return std::find(axes.begin(), axes.end(), axis) != axes.end();
    };
    const int first = static_cast<int>(axes.front()), last = static_cast<int>(axes.back());
    step_.count = 1;
    for (const int64_t axis : axes) step_.count *= x[static_cast<int>(axis)];
    moves_ = last - first + 1 != static_cast<int>(axes.size());
    step_.outer = x.product(0, first);
    step_.inner = x.product(last + 1, x.rank());
    if (!moves_) return;
    step_.outer = 1;
    step_.inner = 1;
    int64_t dense[kMostAxes];
    dense_strides(x, dense);
    for (const bool wanted : {false, true})
      for (int axis = 0; axis < x.rank(); ++axis) {
        if (reduced(axis) != wanted) continue;
        if (!wanted) step_.outer *= x[axis];
        copy_.shape[copy_.rank] = x[axis];
        copy_.x_strides[copy_.rank++] = dense[axis];
      }
    int64_t stride = 1;
    for (int axis = copy_.rank; axis-- > 0; stride *= copy_.shape[axis])
      copy_.y_strides[axis] = stride;
  }
  void run(const void* const* inputs, void* output, Runner& runner) const override {
    QuantizedMeanStep here = step_;
    here.y = static_cast<uint8_t*>(output);
    if (!moves_) {
      here.x = static_cast<const uint8_t*>(inputs[0]);
      quantized_mean(here, runner);
      return;
    }
    const CallMemory moved(std::max<int64_t>(1, step_.outer * step_.count));
    CopyStep move = copy_;
    move.x = inputs[0];
    move.y = moved.get();
    copy(DType::u8, move, runner);
    here.x = reinterpret_cast<const uint8_t*>(moved.get());
    quantized_mean(here, runner);
  }

 private:
  QuantizedMeanStep step_;
  CopyStep copy_{};
  bool moves_;
};

class MeanMaker : public Step {
 public:
  explicit MeanMaker(const StepDescription& d) {
    Attributes attributes(d);
    axes_ = attributes.axes();
    keepdims_ = attributes.flag();
    step_.input_zero_point = byte(attributes, "input_zero_point");
    step_.scale = finite(attributes, "scale");
    step_.zero_point = byte(attributes, "output_zero_point");
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    for (const int64_t axis : axes_) checked_axis(axis, x.rank());
    auto call = std::make_unique<MeanCall>(step_, x, axes_);
    for (int i = 0; i < x.rank(); ++i) {
      const bool reduced = std::find(axes_.begin(), axes_.end(), i) != axes_.end();
      if (reduced && x[i] == 0) fail("There is nothing to reduce: shape " + x.text() + ".");
      if (!reduced || keepdims_) call->shape.append(reduced ? 1 : x[i]);
    }
    call->by_images = axes_[0] != 0;
    return call;
  }

 private:
  QuantizedMeanStep step_{};
  std::vector<int64_t> axes_;
  bool keepdims_;
};

class AveragePoolMaker : public Step {
 public:
  explicit AveragePoolMaker(const StepDescription& d) {
    Attributes attributes(d);
    window_ = attributes.height_width("window");
    spec_ = attributes.spec();
    step_.input_zero_point = byte(attributes, "input_zero_point");
    step_.scale = finite(attributes, "scale");
    step_.zero_point = byte(attributes, "output_zero_point");
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Geometry g = pool_geometry(spec_, window_, inputs[0]);
    // Sums of so many bytes are in int32.
    if (g.kh * g.kw > (int64_t{1} << 22)) fail("The window of the pool is too large.");
    return make_call(result_shape(g, g.c, inputs[0].rank()), -1, true,
                     [g, args = step_](auto* in, void* out, Runner& runner) {
                       QuantizedAveragePoolStep here = args;
                       here.x = static_cast<const uint8_t*>(in[0]);
                       here.y = static_cast<uint8_t*>(out);
                       quantized_average_pool(g, here, runner);
                     });
  }

 private:
  QuantizedAveragePoolStep step_{};
  HeightWidth window_;
  Spec spec_;
};

}  // namespace

std::unique_ptr<Step> make_quantize(const StepDescription& d, DType, const Memory&) {
  return std::make_unique<QuantizeMaker>(d, "multiplier");
}
std::unique_ptr<Step> make_dequantize(const StepDescription& d, DType, const Memory&) {
  return std::make_unique<DequantizeMaker>(d, "scale");
}
std::unique_ptr<Step> make_lookup(const StepDescription& d, DType, const Memory&) {
  return std::make_unique<LookupMaker>(d);
}
std::unique_ptr<Step> make_quantized_binary(const StepDescription& d, DType, const Memory&) {
  return std::make_unique<BinaryMaker>(d);
}
std::unique_ptr<Step> make_quantized_mean(const StepDescription& d, DType, const Memory&) {
  return std::make_unique<MeanMaker>(d);
}
std::unique_ptr<Step> make_quantized_average_pool(const StepDescription& d, DType, const Memory&) {
  return std::make_unique<AveragePoolMaker>(d);
}

}  // namespace sepconv::program
