// The convolutions and products of int8 inference, their weights packed: those that give bytes, and
// those that give the sums as float32. Their meaning, to the bit, is in
// src/sepconv/program/quantized_reference.py.
#include <algorithm>

#include "../quantized.h"
#include "convolution_rows.h"
#include "quantized_step.h"

namespace sepconv::program {
namespace {

std::string counted(int64_t count, const char* what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

// What a step gives: bytes, or float32.
enum class Gives { bytes, floats };

class ConvolutionCall : public Call {
 public:
  ConvolutionCall(const PreparedQuantized& prepared, const Geometry& g, Gives gives, bool residual,
                  int rank)
      : prepared_(prepared), g_(g), gives_(gives), residual_(residual), rank_(rank) {
    const QuantizedWeights& w = prepared.weights();
    // Each element of the residual is read once, before what is stored there.
    if (residual) in_place = 1;
    by_images = rank > 0;  // of a dense layer's matrix the first axis may be any
    const int64_t pixels = g.n * g.ho * g.wo;
    multiply_adds = pixels * ((w.is_depthwise() ? w.middle() * g.kh * g.kw : 0) +
                              (w.mixes() ? w.depth() * w.filters : 0));
  }
  std::string plan_text(int threads) const override {
    constexpr const char* kKinds[] = {"depthwise", "product", "tiles", "patches"};
    constexpr const char* kKernels[] = {"", " small", " loops", " table"};
    const QuantizedPlan plan = prepared_.plan(g_, threads);
    std::string text;
    for (int64_t i = 0; i < plan.count; ++i) {
      const QuantizedPlan::Step& step = plan.steps[i];
      const auto kind = static_cast<size_t>(step.kind), kernel = static_cast<size_t>(step.kernel);
      text += (i == 0 ? "" : ", then ") + std::string(kKinds[kind]) + kKernels[kernel];
      if (step.tile_rows > 0)
        text += " of " + std::to_string(step.tile_rows) + "x" + std::to_string(step.tile_columns);
      text += " in " + counted(step.tasks, "task") + " of ";
      if (step.kernel != QuantizedPlan::Kernel::none)
        text += counted(step.rows, "row");
      else
        text += counted(step.rows, "pixel") + " by " + counted(step.filters, "filter");
    }
    return text;
  }
  void run(const void* const* inputs, void* output, Runner& runner) const override {
    apply(g_, inputs[0], residual_ ? inputs[1] : nullptr, 0, output, runner);
  }
  bool by_rows() const override { return rank_ == 4 && !g_.channels_first && sees_rows(g_); }
  Rows rows_read(Rows computed) const override { return rows_seen(g_, computed); }
  void run_rows(const RowsArguments& rows, Runner& runner) const override {
    apply(geometry_of(g_, rows), rows.x, residual_ ? rows.all : nullptr,
          pixels_before(g_, rows) * prepared_.weights().filters, rows.y, runner);
  }

 private:
  void apply(const Geometry& g, const void* x, const void* residual, int64_t before, void* y,
             Runner& runner) const {
    const auto* const bytes = static_cast<const uint8_t*>(x);
    if (gives_ == Gives::floats) {
      prepared_.forward(g, bytes, static_cast<float*>(y), runner);
      return;
    }
    const auto* const added = static_cast<const uint8_t*>(residual);
    prepared_.forward(g, bytes, added == nullptr ? nullptr : added + before,
                      static_cast<uint8_t*>(y), runner);
  }
  const PreparedQuantized& prepared_;
  const Geometry g_;
  const Gives gives_;
  const bool residual_;
  const int rank_;  // of its arrays
};

DType dtype_of(Gives gives) { return gives == Gives::bytes ? DType::u8 : DType::f32; }

const uint8_t* bytes_of(const TensorView* table) {
  return table == nullptr ? nullptr : static_cast<const uint8_t*>(table->data);
}

// A step's requantisation, from its bias, scale and table; `to` has the rest.
void set_rounding(const char* prefix, int64_t channels, const TensorView* bias,
                  const TensorView* scale, const TensorView* table, Requantize& to) {
  const std::string start(prefix);
  if (scale == nullptr) fail(start + "scale is missing.");
  require_size((start + "bias").c_str(), bias, channels);
  require_size((start + "scale").c_str(), scale, channels);
  require_size((start + "table").c_str(), table, 256);
  to.bias = bias == nullptr ? nullptr : static_cast<const int32_t*>(bias->data);
  to.scale = static_cast<const float*>(scale->data);
  to.table = bytes_of(table);
}

class ConvolutionStep : public Step {
 public:
  ConvolutionStep(const StepDescription& d, Gives gives, const Memory& memory) : gives_(gives) {
    Attributes attributes(d);
    const bool bytes = gives == Gives::bytes;
    spec_ = attributes.spec();
    QuantizedWeights w;
    w.input_zero_point = byte(attributes, "input_zero_point");
    w.depthwise.zero_point = byte(attributes, "depthwise_zero_point");
    read_bounds(attributes, w.depthwise);
    if (bytes) {
      w.output.zero_point = byte(attributes, "output_zero_point");
      read_bounds(attributes, w.output);
      w.residual_zero_point = byte(attributes, "residual_zero_point");
      w.residual_scale = finite(attributes, "residual_scale");
    }
    const TensorView* depthwise = attributes.tensor(DType::i8);
    const TensorView* depthwise_bias = attributes.tensor(DType::i32);
    const TensorView* depthwise_scale = attributes.tensor(DType::f32);
    const TensorView* depthwise_table = attributes.tensor(DType::u8);
    const TensorView* pointwise = attributes.tensor(DType::i8);
    const TensorView* bias = attributes.tensor(DType::i32);
    const TensorView* scale = attributes.tensor(DType::f32);
    const TensorView* table = bytes ? attributes.tensor(DType::u8) : nullptr;
    residual_ = attributes.inputs() == 2;
    if (depthwise == nullptr && pointwise == nullptr) fail("A convolution needs a kernel.");
    if (!bytes && pointwise == nullptr) fail("A convolution to float32 needs a pointwise_kernel.");
    if (depthwise == nullptr &&
        (depthwise_bias != nullptr || depthwise_scale != nullptr || depthwise_table != nullptr))
      fail("depthwise_bias, depthwise_scale and depthwise_table come with a depthwise_kernel.");
    if (pointwise == nullptr && (bias != nullptr || scale != nullptr || table != nullptr))
      fail("bias, scale and table come with a pointwise_kernel.");
    if (residual_ && pointwise == nullptr)
      fail("A residual comes with a kernel that mixes channels.");
    for (const TensorView* kernel : {depthwise, pointwise}) {
      if (kernel == nullptr) continue;
      require_rank(kernel->shape, 4, 4);
      if (kernel->shape.elements() == 0) fail("A kernel has no elements.");
    }
    const Shape& sized = depthwise != nullptr ? depthwise->shape : pointwise->shape;
    w.kh = sized[0], w.kw = sized[1], w.c = sized[2];
    w.m = depthwise != nullptr ? sized[3] : 1;
    w.sh = spec_.stride_h, w.sw = spec_.stride_w, w.dh = spec_.dilation_h, w.dw = spec_.dilation_w;
    if (depthwise != nullptr) {
      w.depthwise_kernel = static_cast<const int8_t*>(depthwise->data);
      set_rounding("depthwise_", w.middle(), depthwise_bias, depthwise_scale, depthwise_table,
                   w.depthwise);
    }
    if (pointwise != nullptr) {
      const Shape& p = pointwise->shape;
      if (depthwise != nullptr && (p[0] != 1 || p[1] != 1 || p[2] != w.middle()))
        fail("pointwise_kernel must have the shape (1, 1, " + std::to_string(w.middle()) +
             ", filters). Received: " + p.text() + ".");
      w.pointwise_kernel = static_cast<const int8_t*>(pointwise->data);
      w.filters = p[3];
      set_rounding("", w.filters, bias, scale, table, w.output);
    }
    kernel_ = {w.kh, w.kw, w.c, w.m};
    prepared_ = std::make_unique<PreparedQuantized>(w, memory);
  }

  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape x = image(inputs[0], spec_.channels_first != 0);
    const Geometry g = resolve(spec_, x.sizes(), kernel_.sizes());
    auto call =
        std::make_unique<ConvolutionCall>(*prepared_, g, gives_, residual_, inputs[0].rank());
    call->shape = result_shape(g, prepared_->weights().outputs(), inputs[0].rank());
    if (residual_) require_residual(inputs[1], call->shape);
    return call;
  }
  int64_t weight_bytes() const override { return prepared_->bytes(); }
  DType gives(DType) const override { return dtype_of(gives_); }

 private:
  const Gives gives_;
  Spec spec_;
  Shape kernel_;
  bool residual_;
  std::unique_ptr<PreparedQuantized> prepared_;
};

class DenseStep : public Step {
 public:
  DenseStep(const StepDescription& d, Gives gives, const Memory& memory) : gives_(gives) {
    Attributes attributes(d);
    const bool bytes = gives == Gives::bytes;
    QuantizedWeights w;
    w.input_zero_point = byte(attributes, "input_zero_point");
    if (bytes) {
      w.output.zero_point = byte(attributes, "output_zero_point");
      read_bounds(attributes, w.output);
    }
    const TensorView* kernel = attributes.tensor(DType::i8);
    const TensorView* bias = attributes.tensor(DType::i32);
    const TensorView* scale = attributes.tensor(DType::f32);
    const TensorView* table = bytes ? attributes.tensor(DType::u8) : nullptr;
    if (kernel == nullptr) fail("A dense layer needs a kernel.");
    require_rank(kernel->shape, 2, 2);
    if (kernel->shape.elements() == 0) fail("The kernel has no elements.");
    w.c = kernel->shape[0];
    w.filters = kernel->shape[1];
    w.pointwise_kernel = static_cast<const int8_t*>(kernel->data);
    set_rounding("", w.filters, bias, scale, table, w.output);
    prepared_ = std::make_unique<PreparedQuantized>(w, memory);
  }

  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    const QuantizedWeights& w = prepared_->weights();
    const Geometry g = dense_geometry(x, w.c);
    auto call = std::make_unique<ConvolutionCall>(*prepared_, g, gives_, false, 0);
    call->shape = x;
    call->shape.set(x.rank() - 1, w.filters);
    return call;
  }
  int64_t weight_bytes() const override { return prepared_->bytes(); }
  DType gives(DType) const override { return dtype_of(gives_); }

 private:
  const Gives gives_;
  std::unique_ptr<PreparedQuantized> prepared_;
};

}  // namespace

std::unique_ptr<Step> make_quantized_convolution(const StepDescription& d, DType,
                                                 const Memory& memory) {
  return std::make_unique<ConvolutionStep>(d, Gives::bytes, memory);
}
std::unique_ptr<Step> make_quantized_dense(const StepDescription& d, DType, const Memory& memory) {
  return std::make_unique<DenseStep>(d, Gives::bytes, memory);
}
std::unique_ptr<Step> make_dequantized_convolution(const StepDescription& d, DType,
                                                   const Memory& memory) {
  return std::make_unique<ConvolutionStep>(d, Gives::floats, memory);
}
std::unique_ptr<Step> make_dequantized_dense(const StepDescription& d, DType,
                                             const Memory& memory) {
  return std::make_unique<DenseStep>(d, Gives::floats, memory);
}

}  // namespace sepconv::program
