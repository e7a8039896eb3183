// TensorFlow's operations SepconvBatchNorm and SepconvBatchNormGradient, as kernels on the CPU:
// batch normalization in training, and its gradients. SepconvHalfBatchNorm and
// SepconvHalfBatchNormGradient are those of half types, whose numbers of a channel are float32.
//
// As in bind_tensorflow.cc, every size is checked at run time, for nothing that a graph hands to an
// operation may crash. epsilon is an input, since an attribute has the digits of a float32 alone.
#include <array>
#include <string>
#include <vector>

#include "dispatch.h"
#include "tensorflow_kernel.h"

namespace {

using namespace tensorflow_kernel;

struct Attributes {
  TF_DataType type;
  int64_t axis;

  sepconv::DType dtype() const {
    switch (type) {
      case TF_DOUBLE:
        return sepconv::DType::f64;
      case TF_BFLOAT16:
        return sepconv::DType::bf16;
      case TF_HALF:
        return sepconv::DType::f16;
      default:
        return sepconv::DType::f32;  // there are these four
    }
  }
  TF_DataType vector_type() const { return type == TF_DOUBLE ? TF_DOUBLE : TF_FLOAT; }
  int64_t itemsize(TF_DataType of) const {
    return sepconv::itemsize(of == type ? dtype() : sepconv::real_dtype(dtype()));
  }
};

void* create(TF_OpKernelConstruction* ctx) {
  const Status status(TF_NewStatus());
  Attributes a{};
  const bool good = guarded(status, [&] {
    TF_OpKernelConstruction_GetAttrType(ctx, "T", &a.type, status.get());
    check(status);
    TF_OpKernelConstruction_GetAttrInt64(ctx, "axis", &a.axis, status.get());
    check(status);
  });
  if (!good) TF_OpKernelConstruction_Failure(ctx, status.get());
  return good ? new Attributes(a) : nullptr;
}

void destroy(void* kernel) { delete static_cast<Attributes*>(kernel); }

// One run of a kernel: x and its sizes, checked.
class Call {
 public:
  Call(const Attributes& a, TF_OpKernelContext* ctx, const Status& status)
      : a_(a), ctx_(ctx), status_(status) {
    x_ = input(0);
    const int rank = TF_NumDims(x_.get());
    if (a.axis < 0 || a.axis >= rank)
      fail("axis must be one of x's. Received: axis=" + std::to_string(a.axis) +
           ", x.shape=" + shape_text(x_.get()));
    sizes = {1, 1, 1, 0};
    for (int i = 0; i < rank; ++i) {
      const int64_t size = TF_Dim(x_.get(), i);
      shape_.push_back(size);
      (i < a.axis ? sizes.outer : i == a.axis ? sizes.channels : sizes.inner) *= size;
    }
  }

  // An input of one number a channel.
  const void* vector(int index, const char* name) {
    const TF_Tensor* tensor = hold(index);
    if (TF_NumDims(tensor) != 1 || TF_Dim(tensor, 0) != sizes.channels)
      fail(std::string(name) + " must have the shape (" + std::to_string(sizes.channels) +
           "). Received: " + name + ".shape=" + shape_text(tensor));
    return TF_TensorData(tensor);
  }

  // An input of x's shape.
  const void* like_x(int index, const char* name) {
    const TF_Tensor* tensor = hold(index);
    bool same = TF_NumDims(tensor) == TF_NumDims(x_.get());
    for (int i = 0; same && i < TF_NumDims(tensor); ++i)
      same = TF_Dim(tensor, i) == TF_Dim(x_.get(), i);
    if (!same)
      fail(std::string(name) + " must have the shape of x, " + shape_text(x_.get()) +
           ". Received: " + name + ".shape=" + shape_text(tensor));
    return TF_TensorData(tensor);
  }

  double epsilon(int index) {
    const TF_Tensor* tensor = hold(index);
    if (TF_NumDims(tensor) != 0)
      fail("epsilon must be a scalar. Received: epsilon.shape=" + shape_text(tensor));
    return *static_cast<const double*>(TF_TensorData(tensor));
  }

  const void* x() const { return TF_TensorData(x_.get()); }
  void* output_like_x(int index) {
    return output(index, a_.type, shape_.data(), static_cast<int>(shape_.size()));
  }
  void* output_vector(int index) { return output(index, a_.vector_type(), &sizes.channels, 1); }

  sepconv::BatchNorm sizes{};

 private:
  Tensor input(int index) {
    TF_Tensor* tensor = nullptr;
    TF_GetInput(ctx_, index, &tensor, status_.get());
    check(status_);
    return Tensor(tensor);
  }

  const TF_Tensor* hold(int index) {
    held_.push_back(input(index));
    return held_.back().get();
  }

  void* output(int index, TF_DataType type, const int64_t* shape, int rank) {
    int64_t bytes = a_.itemsize(type);
    for (int i = 0; i < rank; ++i) bytes *= shape[i];
    const Tensor tensor(TF_AllocateOutput(ctx_, index, type, shape, rank,
                                          static_cast<size_t>(bytes), status_.get()));
    check(status_);
    return TF_TensorData(tensor.get());
  }

  const Attributes& a_;
  TF_OpKernelContext* const ctx_;
  const Status& status_;
  Tensor x_;
  std::vector<int64_t> shape_;
  std::vector<Tensor> held_;
};

void run_forward(const Attributes& a, Call& call) {
  const sepconv::BatchNormForward args{call.x(),
                                       call.vector(1, "gamma"),
                                       call.vector(2, "beta"),
                                       call.output_like_x(0),
                                       call.output_vector(1),
                                       call.output_vector(2)};
  call.sizes.epsilon = call.epsilon(3);
  sepconv::batch_norm_forward(a.dtype(), call.sizes, args, sepconv::pool());
}

void run_backward(const Attributes& a, Call& call) {
  const sepconv::BatchNormBackward args{.x = call.x(),
                                        .gamma = call.vector(1, "gamma"),
                                        .mean = call.vector(2, "mean"),
                                        .variance = call.vector(3, "variance"),
                                        .dy = call.like_x(4, "dy"),
                                        .dx = call.output_like_x(0),
                                        .dgamma = call.output_vector(1),
                                        .dbeta = call.output_vector(2)};
  call.sizes.epsilon = call.epsilon(5);
  sepconv::batch_norm_backward(a.dtype(), call.sizes, args, sepconv::pool());
}

template <void (*run)(const Attributes&, Call&)>
void compute(void* kernel, TF_OpKernelContext* ctx) {
  const Status status(TF_NewStatus());
  const auto& attributes = *static_cast<const Attributes*>(kernel);
  const bool good = guarded(status, [&] {
    Call call(attributes, ctx, status);
    run(attributes, call);
  });
  if (!good) TF_OpKernelContext_Failure(ctx, status.get());
}

// Of both, the first output is like x, and the others are like gamma.
void infer(TF_ShapeInferenceContext* ctx, TF_Status* status) {
  const Shape shape(TF_NewShapeHandle());
  for (int output = 0; output < 3 && TF_GetCode(status) == TF_OK; ++output) {
    TF_ShapeInferenceContextGetInput(ctx, output == 0 ? 0 : 1, shape.get(), status);
    if (TF_GetCode(status) == TF_OK)
      TF_ShapeInferenceContextSetOutput(ctx, output, shape.get(), status);
  }
}

const bool registered = [] {
  constexpr const char *types = "T: {float, double}", *half_types = "T: {bfloat16, half}";
  register_operation({"SepconvBatchNorm",
                      {"x: T", "gamma: T", "beta: T", "epsilon: double"},
                      {"y: T", "mean: T", "variance: T"},
                      {types, "axis: int"},
                      &infer,
                      &create,
                      &compute<&run_forward>,
                      &destroy});
  register_operation({"SepconvHalfBatchNorm",
                      {"x: T", "gamma: float", "beta: float", "epsilon: double"},
                      {"y: T", "mean: float", "variance: float"},
                      {half_types, "axis: int"},
                      &infer,
                      &create,
                      &compute<&run_forward>,
                      &destroy});
  register_operation({"SepconvBatchNormGradient",
                      {"x: T", "gamma: T", "mean: T", "variance: T", "dy: T", "epsilon: double"},
                      {"dx: T", "dgamma: T", "dbeta: T"},
                      {types, "axis: int"},
                      &infer,
                      &create,
                      &compute<&run_backward>,
                      &destroy});
  register_operation(
      {"SepconvHalfBatchNormGradient",
       {"x: T", "gamma: float", "mean: float", "variance: float", "dy: T", "epsilon: double"},
       {"dx: T", "dgamma: float", "dbeta: float"},
       {half_types, "axis: int"},
       &infer,
       &create,
       &compute<&run_backward>,
       &destroy});
  return true;
}();

}  // namespace
