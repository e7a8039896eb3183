// The steps between convolutions that compute: an element at a time, over windows, along axes.
#include <algorithm>

#include "../dispatch.h"
#include "broadcast_call.h"
#include "call_memory.h"
#include "calls.h"
#include "step.h"

namespace sepconv::program {
namespace {

class UnaryMaker : public Step {
 public:
  UnaryMaker(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    step_.function = attributes.choice("function", Unary::sparse_plus);
    step_.a = attributes.number();
    step_.b = attributes.number();
    step_.c = attributes.number();
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    return elements_call(
        inputs[0], true,
        [args = step_, dtype = dtype_](const void* x, void* y, int64_t count, Runner& runner) {
          UnaryStep here = args;
          here.x = x;
          here.y = y;
          here.count = count;
          unary(dtype, here, runner);
        });
  }

 private:
  const DType dtype_;
  UnaryStep step_{};
};

class BinaryCall : public BroadcastCall<BinaryStep> {
 public:
  BinaryCall(const BinaryStep& step, DType dtype, const Shape& a, const Shape& b)
      : BroadcastCall(step, itemsize(dtype), a, b), dtype_(dtype) {}

 private:
  void apply(BinaryStep here, const void* a, const void* b, void* y,
             Runner& runner) const override {
    here.a = a;
    here.b = b;
    here.y = y;
    binary(dtype_, here, runner);
  }
  const DType dtype_;
};

class BinaryMaker : public Step {
 public:
  BinaryMaker(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    step_.function = attributes.choice("function", Binary::power);
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    return std::make_unique<BinaryCall>(step_, dtype_, inputs[0], inputs[1]);
  }

 private:
  const DType dtype_;
  BinaryStep step_{};
};

class ScaleMaker : public Step {
 public:
  ScaleMaker(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    axis_ = attributes.integer();
    const TensorView* scale = attributes.tensor(number_dtype(dtype));
    const TensorView* shift = attributes.tensor(number_dtype(dtype));
    if (scale == nullptr && shift == nullptr) fail("A scale or a shift is needed.");
    for (const TensorView* tensor : {scale, shift}) {
      if (tensor == nullptr) continue;
      require_rank(tensor->shape, 1, 1);
      if (size_ >= 0 && tensor->shape[0] != size_) fail("scale and shift must have one size.");
      size_ = tensor->shape[0];
    }
    scale_ = KeptTensor(scale);
    shift_ = KeptTensor(shift);
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    const int axis = checked_axis(axis_, x.rank());
    if (x[axis] != size_)
      fail("Axis " + std::to_string(axis) + " must have " + std::to_string(size_) +
           " elements. Received: shape " + x.text() + ".");
    ScaleStep args{};
    args.scale = scale_.get();
    args.shift = shift_.get();
    args.outer = x.product(0, axis);
    args.channels = size_;
    args.inner = x.product(axis + 1, x.rank());
    return make_call(x, 0, axis != 0, [args, dtype = dtype_](auto* in, void* out, Runner& runner) {
      ScaleStep here = args;
      here.x = in[0];
      here.y = out;
      scale(dtype, here, runner);
    });
  }
  int64_t weight_bytes() const override { return scale_.bytes() + shift_.bytes(); }

 private:
  const DType dtype_;
  int64_t axis_, size_ = -1;
  KeptTensor scale_, shift_;
};

class PoolMaker : public Step {
 public:
  PoolMaker(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    average_ = attributes.integer("function", 0, 1) == 1;
    if (average_ && dtype == DType::u8) fail("Of uint8 there is no average pool.");
    window_ = attributes.height_width("window");
    spec_ = attributes.spec();
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Geometry g = pool_geometry(spec_, window_, inputs[0]);
    return make_call(result_shape(g, g.c, inputs[0].rank()), -1, true,
                     [g, average = average_, dtype = dtype_](auto* in, void* out, Runner& runner) {
                       pool(dtype, g, {average, in[0], out}, runner);
                     });
  }

 private:
  const DType dtype_;
  bool average_;
  HeightWidth window_;
  Spec spec_;
};

// A reduction: one group of neighbouring axes after the other, the last group first.
class ReduceCall : public Call {
 public:
  ReduceCall(DType dtype, std::vector<ReduceStep> parts)
      : dtype_(dtype), parts_(std::move(parts)) {}
  void run(const void* const* inputs, void* output, Runner& runner) const override {
    if (dtype_ != DType::bf16 || parts_.size() == 1) {
      reduce_all(dtype_, inputs[0], output, runner);
      return;
    }
    // So that nothing is rounded between the groups.
    const ReduceStep &first = parts_.front(), &last = parts_.back();
    const int64_t before = first.outer * first.count * first.inner, after = last.outer * last.inner;
    const CallMemory x(4 * before), y(4 * after);
    cast(dtype_, {true, inputs[0], x.get(), before}, runner);
    reduce_all(DType::f32, x.get(), y.get(), runner);
    cast(dtype_, {false, y.get(), output, after}, runner);
  }

 private:
  void reduce_all(DType dtype, const void* x, void* output, Runner& runner) const {
    std::unique_ptr<CallMemory> before;  // what a group leaves for the next
    for (const ReduceStep& part : parts_) {
      const bool last = &part == &parts_.back();
      const int64_t bytes = part.outer * part.inner * itemsize(dtype);
      auto here = last ? nullptr : std::make_unique<CallMemory>(bytes);
      ReduceStep step = part;
      step.x = x;
      step.y = last ? output : here->get();
      reduce(dtype, step, runner);
      x = step.y;
      before = std::move(here);
    }
  }
  const DType dtype_;
  const std::vector<ReduceStep> parts_;
};

class ReduceMaker : public Step {
 public:
  ReduceMaker(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    function_ = attributes.choice("function", Reduction::sum);
    axes_ = attributes.axes();
    keepdims_ = attributes.flag();
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    Shape shape;
    for (const int64_t axis : axes_) checked_axis(axis, x.rank());
    const auto reduced = [&](int axis) {
      return std::find(axes_.begin(), axes_.end(), axis) != axes_.end();
    };
    for (int i = 0; i < x.rank(); ++i) {
      if (!reduced(i))
        shape.append(x[i]);
      else if (keepdims_)
        shape.append(1);
    }
    std::vector<ReduceStep> parts;
    int64_t inner = 1;
    for (int i = x.rank(); i-- > 0;) {
      if (!reduced(i)) {
        inner *= x[i];
        continue;
      }
      ReduceStep part{};
      part.function = function_;
      part.count = x[i];
      for (; i > 0 && reduced(i - 1); --i) part.count *= x[i - 1];
      part.outer = x.product(0, i);
      part.inner = inner;
      if (part.count == 0) fail("There is nothing to reduce: shape " + x.text() + ".");
      parts.push_back(part);
    }
    auto call = std::make_unique<ReduceCall>(dtype_, std::move(parts));
    call->shape = shape;
    call->by_images = axes_[0] != 0;
    return call;
  }

 private:
  const DType dtype_;
  Reduction function_;
  std::vector<int64_t> axes_;
  bool keepdims_;
};

class SoftmaxMaker : public Step {
 public:
  SoftmaxMaker(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    axis_ = attributes.integer();
    logarithm_ = attributes.flag();
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    const int axis = checked_axis(axis_, x.rank());
    SoftmaxStep args{};
    args.logarithm = logarithm_;
    args.outer = x.product(0, axis);
    args.count = x[axis];
    args.inner = x.product(axis + 1, x.rank());
    return make_call(x, 0, axis != 0, [args, dtype = dtype_](auto* in, void* out, Runner& runner) {
      SoftmaxStep here = args;
      here.x = in[0];
      here.y = out;
      softmax(dtype, here, runner);
    });
  }

 private:
  const DType dtype_;
  int64_t axis_;
  bool logarithm_;
};

class LayerNormalizationMaker : public Step {
 public:
  LayerNormalizationMaker(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    axes_ = static_cast<int>(attributes.integer("axes", 1, kMostAxes));
    epsilon_ = attributes.number();
    const TensorView* gamma = attributes.tensor(number_dtype(dtype));
    const TensorView* beta = attributes.tensor(number_dtype(dtype));
    for (const TensorView* tensor : {gamma, beta}) {
      if (tensor == nullptr) continue;
      require_rank(tensor->shape, axes_, axes_);
      if (sizes_.rank() != 0 && !(sizes_ == tensor->shape))
        fail("gamma and beta must have one shape.");
      sizes_ = tensor->shape;
    }
    gamma_ = KeptTensor(gamma);
    beta_ = KeptTensor(beta);
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    require_rank(x, axes_, kMostAxes);
    const int first = x.rank() - axes_;
    for (int i = 0; i < sizes_.rank(); ++i)
      if (x[first + i] != sizes_[i])
        fail("The last axes must have the sizes of gamma and beta, " + sizes_.text() +
             ". Received: shape " + x.text() + ".");
    LayerNormStep args{};
    args.gamma = gamma_.get();
    args.beta = beta_.get();
    args.rows = x.product(0, first);
    args.count = x.product(first, x.rank());
    args.epsilon = epsilon_;
    return make_call(x, 0, first != 0, [args, dtype = dtype_](auto* in, void* out, Runner& runner) {
      LayerNormStep here = args;
      here.x = in[0];
      here.y = out;
      layer_norm(dtype, here, runner);
    });
  }
  int64_t weight_bytes() const override { return gamma_.bytes() + beta_.bytes(); }

 private:
  const DType dtype_;
  int axes_;
  double epsilon_;
  Shape sizes_;
  KeptTensor gamma_, beta_;
};

class ResizeMaker : public Step {
 public:
  ResizeMaker(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    args_.bilinear = attributes.integer("interpolation", 0, 1) == 1;
    if (args_.bilinear && dtype == DType::u8) fail("Of uint8 there is no bilinear resize.");
    const HeightWidth factors = attributes.height_width("factors");
    args_.factor_h = factors.height;
    args_.factor_w = factors.width;
    args_.channels_first = attributes.flag();
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    require_rank(inputs[0], 4, 4);
    const Shape& x = inputs[0];
    ResizeStep args = args_;
    const int at = args.channels_first ? 2 : 1;
    args.images = x[0];
    args.h = x[at];
    args.w = x[at + 1];
    args.channels = x[args.channels_first ? 1 : 3];
    Shape shape = x;
    for (int i = 0; i < 2; ++i) {
      int64_t size;
      if (__builtin_mul_overflow(x[at + i], i == 0 ? args.factor_h : args.factor_w, &size))
        fail("The output would have more elements than memory can address.");
      shape.set(at + i, size);
    }
    return make_call(shape, -1, true, [args, dtype = dtype_](auto* in, void* out, Runner& runner) {
      ResizeStep here = args;
      here.x = in[0];
      here.y = out;
      resize(dtype, here, runner);
    });
  }

 private:
  const DType dtype_;
  ResizeStep args_{};
};

// To a dtype: the same, or float32 and bfloat16.
class CastMaker : public Step {
 public:
  CastMaker(const StepDescription& d, DType dtype) : from_(dtype) {
    Attributes attributes(d);
    to_ = attributes.integer("dtype", 0, 1) == 1 ? DType::bf16 : DType::f32;
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    if (from_ == to_) return std::make_unique<ViewCall>(inputs[0]);
    const bool widens = to_ == DType::f32;
    return elements_call(inputs[0], false,
                         [widens, half = widens ? from_ : to_](const void* x, void* y,
                                                               int64_t count, Runner& runner) {
                           cast(half, {widens, x, y, count}, runner);
                         });
  }
  DType gives(DType) const override { return to_; }

 private:
  const DType from_;
  DType to_;
};

template <class T>
std::unique_ptr<Step> make(const StepDescription& d, DType dtype) {
  return std::make_unique<T>(d, dtype);
}

}  // namespace

std::unique_ptr<Step> make_unary(const StepDescription& d, DType t, const Memory&) {
  return make<UnaryMaker>(d, t);
}
std::unique_ptr<Step> make_binary(const StepDescription& d, DType t, const Memory&) {
  return make<BinaryMaker>(d, t);
}
std::unique_ptr<Step> make_scale(const StepDescription& d, DType t, const Memory&) {
  return make<ScaleMaker>(d, t);
}
std::unique_ptr<Step> make_pool(const StepDescription& d, DType t, const Memory&) {
  return make<PoolMaker>(d, t);
}
std::unique_ptr<Step> make_reduce(const StepDescription& d, DType t, const Memory&) {
  return make<ReduceMaker>(d, t);
}
std::unique_ptr<Step> make_softmax(const StepDescription& d, DType t, const Memory&) {
  return make<SoftmaxMaker>(d, t);
}
std::unique_ptr<Step> make_layer_normalization(const StepDescription& d, DType t, const Memory&) {
  return make<LayerNormalizationMaker>(d, t);
}
std::unique_ptr<Step> make_resize(const StepDescription& d, DType t, const Memory&) {
  return make<ResizeMaker>(d, t);
}

std::unique_ptr<Step> make_cast(const StepDescription& d, DType t, const Memory&) {
  return make<CastMaker>(d, t);
}

}  // namespace sepconv::program
