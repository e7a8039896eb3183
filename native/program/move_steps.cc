// The steps that move elements and compute nothing: joined, cut, padded, turned, seen in another
// shape; and constants.
#include <cmath>

#include "../dispatch.h"
#include "calls.h"
#include "step.h"

namespace sepconv::program {
namespace {

void* at(void* base, int64_t element, DType dtype) {
  return static_cast<char*>(base) + element * itemsize(dtype);
}

const void* at(const void* base, int64_t element, DType dtype) {
  return static_cast<const char*>(base) + element * itemsize(dtype);
}

// A copy of a box of `shape`, from x and to y with these strides.
CopyStep box(const Shape& shape, const int64_t* x_strides, const int64_t* y_strides) {
  CopyStep copy{};
  copy.rank = shape.rank();
  for (int i = 0; i < shape.rank(); ++i) {
    copy.shape[i] = shape[i];
    copy.x_strides[i] = x_strides[i];
    copy.y_strides[i] = y_strides[i];
  }
  return copy;
}

// Boxes that are copied from inputs to places of the output, which is filled before where they do
// not cover it.
class CopyCall : public Call {
 public:
  explicit CopyCall(DType dtype) : dtype_(dtype) {}
  struct Box {
    int input;
    int64_t from, to;  // elements
    CopyStep copy;
  };
  std::vector<Box> boxes;
  bool fills = false;
  double value = 0;

  void run(const void* const* inputs, void* output, Runner& runner) const override {
    if (fills) fill(dtype_, {value, output, shape.elements()}, runner);
    for (const Box& b : boxes) {
      CopyStep copy = b.copy;
      copy.x = at(inputs[b.input], b.from, dtype_);
      copy.y = at(output, b.to, dtype_);
      sepconv::copy(dtype_, copy, runner);
    }
  }

 private:
  const DType dtype_;
};

void require_one_an_axis(const char* name, const std::vector<int64_t>& values, const Shape& x) {
  if (static_cast<int>(values.size()) != x.rank())
    fail(std::string(name) + " must have a value for each axis of the shape " + x.text() + ".");
}

class Concatenate : public Step {
 public:
  Concatenate(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    axis_ = attributes.integer();
    inputs_ = attributes.inputs();
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const int axis = checked_axis(axis_, inputs[0].rank());
    auto call = std::make_unique<CopyCall>(dtype_);
    Shape shape = inputs[0];
    shape.set(axis, 0);
    for (int i = 0; i < inputs_; ++i) {
      Shape expected = inputs[i];
      if (expected.rank() == shape.rank()) expected.set(axis, shape[axis]);
      if (!(expected == shape))
        fail("Arrays of the shapes " + inputs[0].text() + " and " + inputs[i].text() +
             " cannot be joined along axis " + std::to_string(axis) + ".");
      int64_t size;
      if (__builtin_add_overflow(shape[axis], inputs[i][axis], &size))
        fail("The output would have more elements than memory can address.");
      shape.set(axis, size);
    }
    int64_t from[kMostAxes], to[kMostAxes], offset = 0;
    dense_strides(shape, to);
    for (int i = 0; i < inputs_; ++i) {
      dense_strides(inputs[i], from);
      call->boxes.push_back({i, 0, offset, box(inputs[i], from, to)});
      offset += inputs[i][axis] * to[axis];
    }
    call->shape = shape;
    call->by_images = axis != 0;
    return call;
  }

 private:
  const DType dtype_;
  int64_t axis_;
  int inputs_;
};

class Pad : public Step {
 public:
  Pad(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    before_ = attributes.per_axis("before");
    after_ = attributes.per_axis("after");
    value_ = attributes.number();
    if (dtype == DType::u8 && !(value_ >= 0 && value_ <= 255 && value_ == std::floor(value_)))
      fail("value must be a whole number, 0 to 255, for uint8. Received: " +
           std::to_string(value_) + ".");
    for (const auto& sizes : {before_, after_})
      for (const int64_t size : sizes)
        if (size < 0 || size > kMostPadding)
          fail("before and after must be 0 to 2147483647. Received: " + std::to_string(size) + ".");
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    require_one_an_axis("before", before_, x);
    require_one_an_axis("after", after_, x);
    auto call = std::make_unique<CopyCall>(dtype_);
    for (int i = 0; i < x.rank(); ++i)
      call->shape.append(x[i] + before_[static_cast<size_t>(i)] + after_[static_cast<size_t>(i)]);
    int64_t from[kMostAxes], to[kMostAxes], offset = 0;
    dense_strides(x, from);
    dense_strides(call->shape, to);
    for (int i = 0; i < x.rank(); ++i) offset += before_[static_cast<size_t>(i)] * to[i];
    call->by_images = x.rank() > 0 && call->shape[0] == x[0];
    call->fills = true;
    call->value = value_;
    call->boxes.push_back({0, 0, offset, box(x, from, to)});
    return call;
  }

 private:
  static constexpr int64_t kMostPadding = INT32_MAX;
  const DType dtype_;
  std::vector<int64_t> before_, after_;
  double value_;
};

class Slice : public Step {
 public:
  Slice(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    starts_ = attributes.per_axis("starts");
    stops_ = attributes.per_axis("stops");
    steps_ = attributes.per_axis("steps");
    for (const int64_t step : steps_)
      if (step < 1) fail("steps must be positive. Received: " + std::to_string(step) + ".");
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    require_one_an_axis("starts", starts_, x);
    require_one_an_axis("stops", stops_, x);
    require_one_an_axis("steps", steps_, x);
    auto call = std::make_unique<CopyCall>(dtype_);
    int64_t from[kMostAxes], to[kMostAxes], offset = 0;
    dense_strides(x, from);
    for (int i = 0; i < x.rank(); ++i) {
      const auto k = static_cast<size_t>(i);
      const int64_t first = bound(starts_[k], x[i]), last = bound(stops_[k], x[i]);
      const int64_t step = steps_[k];
      call->shape.append(last > first ? (last - first - 1) / step + 1 : 0);
      offset += first * from[i];
      // Of one element no stride is used, and a large step would make one that overflows.
      from[i] = call->shape[i] > 1 ? from[i] * step : 0;
    }
    dense_strides(call->shape, to);
    call->boxes.push_back(
        {0, call->shape.elements() == 0 ? 0 : offset, 0, box(call->shape, from, to)});
    return call;
  }

 private:
  // Where a bound lies in an axis, as NumPy has it.
  static int64_t bound(int64_t value, int64_t size) {
    if (value < 0) value = value < -size ? 0 : value + size;
    return value > size ? size : value;
  }
  const DType dtype_;
  std::vector<int64_t> starts_, stops_, steps_;
};

class Transpose : public Step {
 public:
  Transpose(const StepDescription& d, DType dtype) : dtype_(dtype) {
    Attributes attributes(d);
    permutation_ = attributes.per_axis("permutation");
    bool seen[kMostAxes] = {};
    for (const int64_t axis : permutation_) {
      if (axis < 0 || axis >= static_cast<int64_t>(permutation_.size()) || seen[axis])
        fail("permutation must hold each axis once.");
      seen[axis] = true;
    }
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    require_one_an_axis("permutation", permutation_, x);
    Shape shape;
    int64_t strides[kMostAxes], from[kMostAxes], to[kMostAxes];
    dense_strides(x, strides);
    bool moves = false;
    int64_t last = -1;
    for (int i = 0; i < x.rank(); ++i) {
      const int64_t axis = permutation_[static_cast<size_t>(i)];
      shape.append(x[static_cast<int>(axis)]);
      from[i] = strides[axis];
      if (shape[i] == 1) continue;  // axes of one element move nothing
      moves |= axis < last;
      last = axis;
    }
    if (!moves) return std::make_unique<ViewCall>(shape);
    auto call = std::make_unique<CopyCall>(dtype_);
    call->shape = shape;
    dense_strides(shape, to);
    call->boxes.push_back({0, 0, 0, box(shape, from, to)});
    return call;
  }

 private:
  const DType dtype_;
  std::vector<int64_t> permutation_;
};

class Reshape : public Step {
 public:
  Reshape(const StepDescription& d, DType) {
    Attributes attributes(d);
    sizes_ = attributes.per_axis("shape");
    int open = 0;
    for (const int64_t size : sizes_) {
      if (size < -1) fail("A size must be -1 or more. Received: " + std::to_string(size) + ".");
      open += size == -1;
    }
    if (open > 1) fail("shape may hold one -1.");
  }
  std::unique_ptr<Call> bind(const Shape* inputs) const override {
    const Shape& x = inputs[0];
    Shape shape, others;  // others: the sizes that are given
    int open = -1;
    for (size_t i = 0; i < sizes_.size(); ++i) {
      const int axis = static_cast<int>(i);
      int64_t size = sizes_[i];
      if (size > 0) others.append(size);
      if (size == 0) {
        if (axis >= x.rank())
          fail("A size of 0 stands for that of an axis that " + x.text() + " does not have.");
        size = x[axis];
      } else if (size == -1) {
        open = axis;
        size = 1;
      }
      shape.append(size);
    }
    if (open >= 0) {
      // Only of the axes that no 0 keeps: with all axes, an empty batch would leave nothing.
      int64_t rest = 1;
      for (int axis = 0; axis < x.rank(); ++axis)
        if (static_cast<size_t>(axis) >= sizes_.size() || sizes_[static_cast<size_t>(axis)] != 0)
          rest *= x[axis];
      if (rest % others.elements() != 0) refuse(x, shape);
      shape.set(open, rest / others.elements());
    }
    if (shape.elements() != x.elements()) refuse(x, shape);
    return std::make_unique<ViewCall>(shape);
  }

 private:
  [[noreturn]] static void refuse(const Shape& x, const Shape& shape) {
    fail("An array of the shape " + x.text() + " cannot be seen as " + shape.text() + ".");
  }
  std::vector<int64_t> sizes_;
};

class Constant : public Step {
 public:
  explicit Constant(const StepDescription& d) {
    Attributes attributes(d);
    const TensorView* value = attributes.tensor();
    if (value == nullptr) fail("A constant needs a value.");
    if (value->dtype == DType::i8 || value->dtype == DType::i32)
      fail("A constant must be of a dtype of values. Received: " +
           std::string(name_of(value->dtype)) + ".");
    shape_ = value->shape;
    dtype_ = value->dtype;
    value_ = KeptTensor(value);
  }
  std::unique_ptr<Call> bind(const Shape*) const override {
    auto call = std::make_unique<ViewCall>(shape_);
    call->in_place = -1;
    return call;
  }
  const void* constant() const override { return value_.get(); }
  int64_t weight_bytes() const override { return value_.bytes(); }
  DType gives(DType) const override { return dtype_; }

 private:
  Shape shape_;
  DType dtype_;
  KeptTensor value_;
};

}  // namespace

std::unique_ptr<Step> make_concatenate(const StepDescription& d, DType dtype, const Memory&) {
  return std::make_unique<Concatenate>(d, dtype);
}
std::unique_ptr<Step> make_pad(const StepDescription& d, DType dtype, const Memory&) {
  return std::make_unique<Pad>(d, dtype);
}
std::unique_ptr<Step> make_slice(const StepDescription& d, DType dtype, const Memory&) {
  return std::make_unique<Slice>(d, dtype);
}
std::unique_ptr<Step> make_transpose(const StepDescription& d, DType dtype, const Memory&) {
  return std::make_unique<Transpose>(d, dtype);
}
std::unique_ptr<Step> make_reshape(const StepDescription& d, DType dtype, const Memory&) {
  return std::make_unique<Reshape>(d, dtype);
}
std::unique_ptr<Step> make_constant(const StepDescription& d, DType, const Memory&) {
  return std::make_unique<Constant>(d);
}

}  // namespace sepconv::program
