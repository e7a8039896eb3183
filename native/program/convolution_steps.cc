// The steps that multiply: convolutions and dense layers, their weights packed.
#include <algorithm>

#include "../dispatch.h"
#include "../prepared.h"
#include "convolution_rows.h"
#include "step.h"

namespace sepconv::program {
namespace {

int64_t bytes_of(const PreparedConvolution::Weights& w) {
  const int64_t middle = w.channels * w.depth_multiplier;
  int64_t elements = w.args.depthwise_kernel == nullptr ? 0 : w.taps * middle, packed = 0;
  if (w.args.mixes())
    packed = (w.args.depthwise_kernel == nullptr ? w.taps * w.channels : middle) * w.args.filters *
             packed_item(w.dtype);
  elements += (w.args.depthwise_bias == nullptr ? 0 : middle) + (w.args.bias == nullptr ? 0
                                                                 : w.args.mixes() ? w.args.filters
                                                                                  : middle);
  return elements * itemsize(w.dtype) + packed;
}

const void* data_of(const TensorView* tensor) { return tensor == nullptr ? nullptr : tensor->data; }

class PreparedCall : public Call {
 public:
  PreparedCall(const PreparedConvolution& prepared, const Geometry& g, bool residual, int rank)
      : prepared_(prepared), g_(g), residual_(residual), rank_(rank) {
    const Forward& args = prepared.weights().args;
    // A product reads each element of the residual once, just before it stores there.
    const bool product = args.depthwise_kernel != nullptr || g.kh * g.kw == 1;
    if (residual && product) in_place = 1;
    by_images = rank > 0;  // of a dense layer's matrix the first axis may be any
    const int64_t pixels = g.n * g.ho * g.wo, middle = g.c * g.m;
    if (args.depthwise_kernel != nullptr)
      multiply_adds = pixels * middle * (g.kh * g.kw + args.filters);
    else
      multiply_adds = pixels * g.kh * g.kw * g.c * args.filters;
  }
  void run(const void* const* inputs, void* output, Runner& runner) const override {
    prepared_.forward(g_, inputs[0], residual_ ? inputs[1] : nullptr, output, runner);
  }

  std::string plan_text(int threads) const override {
    constexpr const char* kKinds[] = {"depthwise", "product", "tiles", "parts", "patches"};
    constexpr const char* kKernels[] = {"",       " flat",    " planar",
                                        " small", " stride2", " channelwise"};
    const Forward& args = prepared_.weights().args;
    Operation operation{.filters = args.filters, .packed = args.mixes()};
    if (args.depthwise_kernel == nullptr) operation.pass = Pass::ordinary_forward;
    const Plan plan = make_plan(prepared_.weights().dtype, g_, operation, threads);
    std::string text;
    for (int64_t i = 0; i < plan.count; ++i) {
      const PlanStep& step = plan.steps[i];
      text += (i == 0 ? "" : ", then ") + std::string(kKinds[static_cast<int>(step.kind)]) +
              kKernels[static_cast<int>(step.kernel)] + " in " + std::to_string(step.tasks) +
              (step.tasks == 1 ? " task" : " tasks");
    }
    return text;
  }

  // Fewer channels than any level's lanes are computed along rows and planes, by sums that depend
  // on the cut (see is_flat and is_narrow in kernels/plan_depthwise.h).
  bool by_rows() const override {
    constexpr int64_t kMostLanes = 16;
    const bool depthwise = prepared_.weights().args.depthwise_kernel != nullptr;
    return rank_ == 4 && !g_.channels_first && sees_rows(g_) &&
           (!depthwise || (g_.m == 1 && g_.c >= kMostLanes));
  }
  Rows rows_read(Rows computed) const override { return rows_seen(g_, computed); }
  void run_rows(const RowsArguments& rows, Runner& runner) const override {
    const PreparedConvolution::Weights& weights = prepared_.weights();
    const int64_t before = pixels_before(g_, rows) * weights.args.filters * itemsize(weights.dtype);
    const void* residual = residual_ ? static_cast<const char*>(rows.all) + before : nullptr;
    prepared_.forward(geometry_of(g_, rows), rows.x, residual, rows.y, runner);
  }

 private:
  const PreparedConvolution& prepared_;
  const Geometry g_;
  const bool residual_;
  const int rank_;  // of its arrays
};

class ConvolutionStep : public Step {
 public:
  ConvolutionStep(const StepDescription& d, DType dtype, const Memory& memory) {
    Attributes attributes(d);
    spec_ = attributes.spec();
    Forward args;
    args.depthwise_activation = attributes.choice("depthwise_activation", Activation::silu);
    args.activation = attributes.choice("activation", Activation::silu);
    const TensorView* depthwise = attributes.tensor(dtype);
    const TensorView* depthwise_bias = attributes.tensor(dtype);
    const TensorView* pointwise = attributes.tensor(dtype);
    const TensorView* bias = attributes.tensor(dtype);
    residual_ = attributes.inputs() == 2;
    if (depthwise == nullptr && pointwise == nullptr) fail("A convolution needs a kernel.");
    for (const TensorView* kernel : {depthwise, pointwise}) {
      if (kernel == nullptr) continue;
      require_rank(kernel->shape, 4, 4);
      for (const int64_t size : kernel->shape)
        if (size == 0) fail("A kernel has no elements: shape " + kernel->shape.text() + ".");
    }
    const Shape& window = (depthwise != nullptr ? depthwise : pointwise)->shape;
    kernel_ = window;
    if (depthwise == nullptr) kernel_.set(3, 1);
    const int64_t middle = kernel_[2] * kernel_[3];
    if (depthwise != nullptr && pointwise != nullptr) {
      const Shape& p = pointwise->shape;
      if (p[0] != 1 || p[1] != 1 || p[2] != middle)
        fail("pointwise_kernel must have the shape (1, 1, " + std::to_string(middle) +
             ", filters). Received: " + p.text() + ".");
    } else if (depthwise_bias != nullptr || args.depthwise_activation != Activation::none) {
      fail("depthwise_bias and depthwise_activation come with both kernels.");
    }
    if (residual_ && pointwise == nullptr)
      fail("A residual comes with a kernel that mixes channels.");
    args.filters = pointwise == nullptr ? 0 : pointwise->shape[3];
    outputs_ = pointwise == nullptr ? middle : args.filters;
    require_size("depthwise_bias", depthwise_bias, middle);
    require_size("bias", bias, outputs_);
    args.depthwise_kernel = data_of(depthwise);
    args.depthwise_bias = data_of(depthwise_bias);
    args.pointwise_kernel = data_of(pointwise);
    args.bias = data_of(bias);
    prepared_ = std::make_unique<PreparedConvolution>(
        PreparedConvolution::Weights{dtype, spec_.channels_first != 0, kernel_[0] * kernel_[1],
                                     kernel_[2], kernel_[3], args},
        memory);
  }

  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape x = image(inputs[0], spec_.channels_first != 0);
    const Geometry g = resolve(spec_, x.sizes(), kernel_.sizes());
    auto call = std::make_unique<PreparedCall>(*prepared_, g, residual_, inputs[0].rank());
    call->shape = result_shape(g, outputs_, inputs[0].rank());
    if (residual_) require_residual(inputs[1], call->shape);
    return call;
  }
  int64_t weight_bytes() const override { return bytes_of(prepared_->weights()); }

 private:
  Spec spec_;
  Shape kernel_;
  int64_t outputs_;
  bool residual_;
  std::unique_ptr<PreparedConvolution> prepared_;
};

class DenseStep : public Step {
 public:
  DenseStep(const StepDescription& d, DType dtype, const Memory& memory) {
    Attributes attributes(d);
    Forward args;
    args.activation = attributes.choice("activation", Activation::silu);
    const TensorView* kernel = attributes.tensor(dtype);
    const TensorView* bias = attributes.tensor(dtype);
    residual_ = attributes.inputs() == 2;
    if (kernel == nullptr) fail("A dense layer needs a kernel.");
    require_rank(kernel->shape, 2, 2);
    depth_ = kernel->shape[0];
    args.filters = outputs_ = kernel->shape[1];
    if (depth_ == 0 || outputs_ == 0) fail("The kernel has no elements.");
    require_size("bias", bias, outputs_);
    args.pointwise_kernel = kernel->data;
    args.bias = data_of(bias);
    prepared_ = std::make_unique<PreparedConvolution>(
        PreparedConvolution::Weights{dtype, false, 1, depth_, 1, args}, memory);
  }

  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    const Geometry g = dense_geometry(x, depth_);
    auto call = std::make_unique<PreparedCall>(*prepared_, g, residual_, 0);
    call->shape = x;
    call->shape.set(x.rank() - 1, outputs_);
    if (residual_) require_residual(inputs[1], call->shape);
    return call;
  }
  int64_t weight_bytes() const override { return bytes_of(prepared_->weights()); }

 private:
  int64_t depth_, outputs_;
  bool residual_;
  std::unique_ptr<PreparedConvolution> prepared_;
};

}  // namespace

std::unique_ptr<Step> make_convolution(const StepDescription& d, DType dtype,
                                       const Memory& memory) {
  return std::make_unique<ConvolutionStep>(d, dtype, memory);
}

std::unique_ptr<Step> make_dense(const StepDescription& d, DType dtype, const Memory& memory) {
  return std::make_unique<DenseStep>(d, dtype, memory);
}

}  // namespace sepconv::program
