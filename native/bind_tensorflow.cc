// TensorFlow's operations, SepconvForward and SepconvBackward, as kernels on the CPU.
//
// The first is a whole block. Where it is a depthwise or separable convolution y = F(x, depthwise,
// pointwise) and no more, the two are enough for derivatives of any order: F is linear in each
// argument, and the derivatives of the backward operation are F and the backward operation with one
// argument replaced. Any other block has the derivatives of what it is composed of (see
// engines/tensorflow/).
//
// Nothing that a graph or a user hands to an operation may crash: every size is checked here, at
// run time, where all of them are known.
#include <array>
#include <bitset>
#include <string>

#include "dispatch.h"
#include "tensorflow_kernel.h"

namespace {

using namespace tensorflow_kernel;

constexpr const char* kForward = "SepconvForward";
constexpr const char* kBackward = "SepconvBackward";
// The types that both are defined for.
constexpr const char* kTypes = "T: {float, double, bfloat16, half}";

using Sizes = std::array<int64_t, 4>;

// ---- attributes

enum class Operation { forward, backward };

struct Attributes {
  sepconv::Spec spec;
  TF_DataType type;
  int64_t given;        // bits: which operands there are
  bool wanted[4] = {};  // backward only: x, depthwise_kernel, pointwise_kernel, bias
  // Of forward only.
  sepconv::Activation depthwise_activation = sepconv::Activation::none;
  sepconv::Activation activation = sepconv::Activation::none;

  bool has(int64_t operand) const { return (given & operand) != 0; }
  bool convolved() const { return has(sepconv::kDepthwise); }
  bool separable() const { return has(sepconv::kPointwise); }

  sepconv::DType dtype() const {
    switch (type) {
      case TF_BFLOAT16:
        return sepconv::DType::bf16;
      case TF_HALF:
        return sepconv::DType::f16;
      case TF_DOUBLE:
        return sepconv::DType::f64;
      default:
        return sepconv::DType::f32;  // operations are defined for these four
    }
  }
};

void require_length(TF_OpKernelConstruction* ctx, const char* name, int expected,
                    const Status& status) {
  int32_t length = 0, total = 0;
  TF_OpKernelConstruction_GetAttrSize(ctx, name, &length, &total, status.get());
  check(status);
  if (length != expected)
    fail(std::string(name) + " must be " + std::to_string(expected) +
         " values. Received: " + std::to_string(length) + ".");
}

int64_t integer(TF_OpKernelConstruction* ctx, const char* name, int64_t last,
                const Status& status) {
  int64_t value = 0;
  TF_OpKernelConstruction_GetAttrInt64(ctx, name, &value, status.get());
  check(status);
  if (value < 0 || value > last)
    fail(std::string(name) + " must be 0 to " + std::to_string(last) +
         ". Received: " + std::to_string(value) + ".");
  return value;
}

Attributes read_attributes(TF_OpKernelConstruction* ctx, Operation operation,
                           const Status& status) {
  Attributes a{};
  TF_OpKernelConstruction_GetAttrType(ctx, "T", &a.type, status.get());
  check(status);
  int64_t s[sepconv::kSpecSize];
  require_length(ctx, "spec", sepconv::kSpecSize, status);
  TF_OpKernelConstruction_GetAttrInt64List(ctx, "spec", s, sepconv::kSpecSize, status.get());
  check(status);
  a.spec = {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9]};
  if (operation == Operation::forward) {
    constexpr int64_t kLast = static_cast<int64_t>(sepconv::Activation::silu);
    const auto activation = [&](const char* name) {
      return sepconv::activation_of(integer(ctx, name, kLast, status));
    };
    constexpr int64_t kAll = 2 * sepconv::kResidual - 1;
    a.given = integer(ctx, "given", kAll, status);
    const int64_t count = integer(ctx, "num_operands", kAll, status);
    if (!a.has(sepconv::kX) ||
        std::bitset<64>(static_cast<uint64_t>(a.given)).count() != static_cast<size_t>(count) + 1)
      fail("given must have a bit for x and for each of the operands. Received: given=" +
           std::to_string(a.given) + " with " + std::to_string(count) + " operands after x.");
    a.depthwise_activation = activation("depthwise_activation");
    a.activation = activation("activation");
    if (!a.convolved() && !a.separable()) fail("There is no kernel.");
    if (!a.convolved() && a.has(sepconv::kDepthwiseBias))
      fail("depthwise_bias comes with depthwise_kernel.");
  } else {
    a.given = sepconv::kX | sepconv::kDepthwise;
    if (integer(ctx, "num_pointwise", 1, status) != 0) a.given |= sepconv::kPointwise;
    TF_Bool wanted[4];
    require_length(ctx, "wanted", 4, status);
    TF_OpKernelConstruction_GetAttrBoolList(ctx, "wanted", wanted, 4, status.get());
    check(status);
    for (int i = 0; i < 4; ++i) a.wanted[i] = wanted[i] != 0;
    if (a.wanted[2] && !a.separable())
      fail("wanted asks for a gradient of pointwise_kernel, and there is none.");
  }
  return a;
}

template <Operation operation>
void* create(TF_OpKernelConstruction* ctx) {
  const Status status(TF_NewStatus());
  Attributes* attributes = nullptr;
  if (!guarded(status,
               [&] { attributes = new Attributes(read_attributes(ctx, operation, status)); }))
    TF_OpKernelConstruction_Failure(ctx, status.get());
  return attributes;
}

void destroy(void* kernel) { delete static_cast<Attributes*>(kernel); }

// ---- inputs and outputs

Sizes four(const char* name, const TF_Tensor* tensor) {
  if (TF_NumDims(tensor) != 4)
    fail(std::string(name) + " must have 4 axes. Received: " + name +
         ".shape=" + shape_text(tensor));
  Sizes sizes{};
  for (int i = 0; i < 4; ++i) sizes[static_cast<size_t>(i)] = TF_Dim(tensor, i);
  return sizes;
}

// One run of a kernel: the inputs that several operations have, checked.
class Call {
 public:
  Call(const Attributes& a, TF_OpKernelContext* ctx, const Status& status)
      : attributes(a), ctx_(ctx), status_(status) {
    x_ = input(next++);
    const Sizes x_shape = four("x", x_.get());
    if (a.convolved()) {
      depthwise_ = input(next++);
      depthwise_shape = four("depthwise_kernel", depthwise_.get());
      g = sepconv::resolve(a.spec, x_shape.data(), depthwise_shape.data());
    }
    if (a.has(sepconv::kDepthwiseBias)) depthwise_bias_ = vector("depthwise_bias", g.c * g.m);
    if (a.separable()) {
      pointwise_ = input(next++);
      pointwise_shape = four("pointwise_kernel", pointwise_.get());
      const Sizes& p = pointwise_shape;
      const int64_t depth = a.convolved() ? g.c * g.m : x_shape[a.spec.channels_first ? 1 : 3];
      if ((a.convolved() && (p[0] != 1 || p[1] != 1)) || p[0] < 1 || p[1] < 1 || p[2] != depth ||
          p[3] < 1)
        fail(std::string("pointwise_kernel must have the shape (") +
             (a.convolved() ? "1, 1, " : "kernel_height, kernel_width, ") + std::to_string(depth) +
             ", filters). Received: pointwise_kernel.shape=" + shape_text(pointwise_.get()));
      filters = p[3];
      if (!a.convolved()) {  // an ordinary convolution
        const Sizes window{p[0], p[1], depth, 1};
        g = sepconv::resolve(a.spec, x_shape.data(), window.data());
      }
    }
    const int64_t channels = g.c * g.m;
    outputs = a.separable() ? filters : channels;
    if (a.has(sepconv::kBias)) bias_ = vector("bias", outputs);
    // resolve() has checked c * m channels. An output that overflows would abort in TensorFlow.
    int64_t bytes = 8;
    for (const int64_t size : {g.n, g.ho, g.wo, outputs})
      if (size != 0 && __builtin_mul_overflow(bytes, size, &bytes))
        fail("The output would have more elements than memory can address.");
  }

  // The next input, a vector of `count` values.
  Tensor vector(const char* name, int64_t count) {
    Tensor tensor = input(next++);
    if (TF_NumDims(tensor.get()) != 1 || TF_Dim(tensor.get(), 0) != count)
      fail(std::string(name) + " must have the shape (" + std::to_string(count) +
           "). Received: " + name + ".shape=" + shape_text(tensor.get()));
    return tensor;
  }

  // The next input, in the shape of the output.
  Tensor like_output(const char* name) {
    Tensor tensor = input(next++);
    const Sizes y = y_sizes();
    if (four(name, tensor.get()) != y)
      fail(std::string(name) + " must have the shape of the output, (" + std::to_string(y[0]) +
           ", " + std::to_string(y[1]) + ", " + std::to_string(y[2]) + ", " + std::to_string(y[3]) +
           "). Received: " + name + ".shape=" + shape_text(tensor.get()));
    return tensor;
  }

  Tensor input(int index) {
    TF_Tensor* tensor = nullptr;
    TF_GetInput(ctx_, index, &tensor, status_.get());
    check(status_);
    return Tensor(tensor);
  }

  // An output of `count` sizes; its shape is known not to overflow.
  void* output(int index, const int64_t* sizes, int count) {
    int64_t bytes = sepconv::itemsize(attributes.dtype());
    for (int i = 0; i < count; ++i) bytes *= sizes[i];
    const Tensor tensor(TF_AllocateOutput(ctx_, index, attributes.type, sizes, count,
                                          static_cast<size_t>(bytes), status_.get()));
    check(status_);
    return TF_TensorData(tensor.get());
  }

  // TensorFlow holds the buffers until the kernel returns.
  const void* x() const { return data(x_); }
  const void* depthwise() const { return data(depthwise_); }
  const void* depthwise_bias() const { return data(depthwise_bias_); }
  const void* pointwise() const { return data(pointwise_); }
  const void* bias() const { return data(bias_); }
  // Null where there is no tensor.
  static const void* data(const Tensor& tensor) {
    return tensor ? TF_TensorData(tensor.get()) : nullptr;
  }

  Sizes x_sizes() const { return layout(g.h, g.w, g.c); }
  Sizes y_sizes() const { return layout(g.ho, g.wo, outputs); }

  const Attributes& attributes;
  sepconv::Geometry g{};
  int64_t filters = 0;  // 0: there is no pointwise kernel
  int64_t outputs = 0;  // channels
  int next = 0;         // input
  Sizes depthwise_shape{}, pointwise_shape{};

 private:
  Sizes layout(int64_t h, int64_t w, int64_t channels) const {
    return g.channels_first ? Sizes{g.n, channels, h, w} : Sizes{g.n, h, w, channels};
  }

  TF_OpKernelContext* const ctx_;
  const Status& status_;
  Tensor x_, depthwise_, depthwise_bias_, pointwise_, bias_;
};

// ---- the operations

void run_forward(const Attributes& a, TF_OpKernelContext* ctx, const Status& status) {
  Call call(a, ctx, status);
  Tensor residual;
  if (a.has(sepconv::kResidual)) residual = call.like_output("residual");
  void* y = call.output(0, call.y_sizes().data(), 4);
  const sepconv::Forward args{.x = call.x(),
                              .depthwise_kernel = call.depthwise(),
                              .depthwise_bias = call.depthwise_bias(),
                              .pointwise_kernel = call.pointwise(),
                              .bias = call.bias(),
                              .residual = Call::data(residual),
                              .y = y,
                              .filters = call.filters,
                              .depthwise_activation = a.depthwise_activation,
                              .activation = a.activation};
  sepconv::forward(a.dtype(), call.g, args, sepconv::pool());
}

void run_backward(const Attributes& a, TF_OpKernelContext* ctx, const Status& status) {
  Call call(a, ctx, status);
  const Tensor dy = call.like_output("dy");
  // An output that is not wanted must exist all the same; it is empty.
  const auto gradient = [&](int index, const int64_t* sizes, int count) -> void* {
    if (a.wanted[index]) return call.output(index, sizes, count);
    const int64_t none = 0;
    call.output(index, &none, 1);
    return nullptr;
  };
  const sepconv::Backward args{.x = call.x(),
                               .depthwise_kernel = call.depthwise(),
                               .pointwise_kernel = call.pointwise(),
                               .dy = TF_TensorData(dy.get()),
                               .dx = gradient(0, call.x_sizes().data(), 4),
                               .ddepthwise = gradient(1, call.depthwise_shape.data(), 4),
                               .dpointwise = gradient(2, call.pointwise_shape.data(), 4),
                               .dbias = gradient(3, &call.outputs, 1),
                               .filters = call.filters};
  sepconv::backward(a.dtype(), call.g, args, sepconv::pool());
}

template <void (*run)(const Attributes&, TF_OpKernelContext*, const Status&)>
void compute(void* kernel, TF_OpKernelContext* ctx) {
  const Status status(TF_NewStatus());
  if (!guarded(status, [&] { run(*static_cast<const Attributes*>(kernel), ctx, status); }))
    TF_OpKernelContext_Failure(ctx, status.get());
}

// ---- shapes while a graph is built
//
// The C API lets a shape function see no attribute but types, so the spec is hidden from it: it
// can tell the rank and the batch size. engines/tensorflow/ sets the rest.

void infer_forward(TF_ShapeInferenceContext* ctx, TF_Status* status) {
  const Shape x(TF_NewShapeHandle()), batch(TF_NewShapeHandle()), rest(TF_NewShapeHandle()),
      y(TF_NewShapeHandle());
  const auto good = [&] { return TF_GetCode(status) == TF_OK; };
  TF_ShapeInferenceContextGetInput(ctx, 0, x.get(), status);
  if (good()) TF_ShapeInferenceContextWithRank(ctx, x.get(), 4, x.get(), status);
  if (good()) TF_ShapeInferenceContextSubshape(ctx, x.get(), 0, 1, batch.get(), status);
  // Three new unknown sizes: those of x would count as known to be equal to it.
  if (good()) TF_ShapeInferenceContextWithRank(ctx, rest.get(), 3, rest.get(), status);
  if (good())
    TF_ShapeInferenceContextConcatenateShapes(ctx, batch.get(), rest.get(), y.get(), status);
  if (good()) TF_ShapeInferenceContextSetOutput(ctx, 0, y.get(), status);
}

void infer_backward(TF_ShapeInferenceContext* ctx, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(ctx, status);
}

// ---- registration, when the library is loaded

const bool registered = [] {
  register_operation(
      {kBackward,
       {"x: T", "depthwise_kernel: T", "pointwise_kernel: num_pointwise * T", "dy: T"},
       {"dx: T", "ddepthwise_kernel: T", "dpointwise_kernel: T", "dbias: T"},
       {kTypes, "num_pointwise: int >= 0", "spec: list(int)", "wanted: list(bool)"},
       &infer_backward,
       &create<Operation::backward>,
       &compute<&run_backward>,
       &destroy});
  register_operation(
      {kForward,
       // One list of operands: TensorFlow takes microseconds of an eager call for each.
       {"x: T", "operands: num_operands * T"},
       {"y: T"},
       {kTypes, "num_operands: int >= 1", "given: int", "spec: list(int)",
        "depthwise_activation: int = 0", "activation: int = 0"},
       &infer_forward,
       &create<Operation::forward>,
       &compute<&run_forward>,
       &destroy});
  return true;
}();

}  // namespace
