// What a step of a program is: a shape function, and a call that is made for the shapes at hand.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "../dispatch.h"
#include "../operation.h"
#include "../threads.h"
#include "../weight_memory.h"
#include "shape.h"

namespace sepconv::program {

// Where the packed weights of a program's convolutions lie.
using Memory = std::shared_ptr<WeightMemory>;

// A tensor that a step is made of. The step copies what it keeps.
struct TensorView {
  Shape shape;
  const void* data;
  DType dtype;
};

// A step as a file or a compiler describes it: see OPERATIONS in src/sepconv/program/network.py.
struct StepDescription {
  std::string operation, name;
  std::vector<int> inputs;  // numbers of values
  // Its attributes in their order: of a flag 0 or 1, of a choice its number, of a list its length
  // and then its elements; kToTheEnd stands for "to the end".
  std::vector<int64_t> ints;
  std::vector<double> floats;
  std::vector<const TensorView*> tensors;  // in the order of their parts; null where there is none
};
inline constexpr int64_t kToTheEnd = INT64_MAX;

// As src/sepconv/program/dtypes.py names it.
constexpr const char* name_of(DType dtype) {
  constexpr const char* kNames[] = {"float32", "float64", "bfloat16", "float16",
                                    "uint8",   "int8",    "int32"};
  return kNames[static_cast<int>(dtype)];
}

// Rows of an image, the first and the one after the last.
struct Rows {
  int64_t first, last;
  int64_t count() const { return last - first; }
};

// What a call computes some rows of one image from. All but y may be part of larger arrays.
struct RowsArguments {
  int64_t image;    // of the batch
  const void* x;    // the first of the rows that are read
  Rows read;        // of x
  const void* all;  // the second input, whole; null where there is none
  void* y;          // the first of the rows that are computed
  Rows computed;    // of y
};

// A step for inputs of known shapes. May be run by many threads at once.
class Call {
 public:
  virtual ~Call() = default;
  virtual void run(const void* const* inputs, void* output, Runner& runner) const = 0;

  // How it is computed on this many threads, in words; empty where its kind says all.
  virtual std::string plan_text(int threads) const {
    (void)threads;
    return "";
  }

  // Whether rows of the output, an image [N, H, W, C], can be computed by themselves from rows of
  // the first input, with the same bits however they are cut. The second input, if there is one, is
  // of the output's shape or the same for all rows.
  virtual bool by_rows() const { return false; }
  // The rows of the first input that such rows are computed from.
  virtual Rows rows_read(Rows computed) const { return computed; }
  virtual void run_rows(const RowsArguments&, Runner&) const {}

  Shape shape;  // of the output
  // The input whose memory the output may take, or -1.
  int in_place = -1;
  // Whether the output is that input, seen in another shape; it is not run then.
  bool view = false;
  // Whether an element of the first axis, as an image of a batch, is computed from those of the
  // inputs' first axes that have its number, and from nothing else.
  bool by_images = false;
  // How many multiply-adds its convolutions and products need, for reports.
  int64_t multiply_adds = 0;
};

// A step with its weights, for inputs of any shapes.
class Step {
 public:
  virtual ~Step() = default;
  // The call for inputs of these shapes. Throws std::invalid_argument where they do not fit.
  virtual std::unique_ptr<Call> bind(const Shape* inputs) const = 0;
  // The bytes of the weights that it keeps.
  virtual int64_t weight_bytes() const { return 0; }
  // The constant that it is, or null.
  virtual const void* constant() const { return nullptr; }
  // The dtype of its output, for a first input of dtype `x`; as dtype_of() in
  // src/sepconv/program/dtypes.py.
  virtual DType gives(DType x) const { return x; }
};

// Checks everything about a step that depends on no shape of a value, for inputs of these dtypes.
// Throws std::invalid_argument.
std::unique_ptr<Step> make_step(const StepDescription& description,
                                const std::vector<DType>& inputs, const Memory& memory);

// Calls `function`, whose errors get the step's name.
template <class F>
auto named(const std::string& operation, const std::string& name, const F& function) {
  try {
    return function();
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("The step '" + name + "' (" + operation + "): " + error.what());
  }
}

// ---- for those who write steps

// Two sizes of a window, or factors, along an image's two axes.
struct HeightWidth {
  int64_t height, width;
};

// Reads a description's attributes one after the other.
class Attributes {
 public:
  explicit Attributes(const StepDescription& d) : d_(d) {}
  int64_t integer() {
    if (next_ >= d_.ints.size()) fail("An attribute is missing.");
    return d_.ints[next_++];
  }
  int64_t integer(const char* name, int64_t least, int64_t most) {
    const int64_t value = integer();
    if (value < least || value > most)
      fail(std::string(name) + " must be " + std::to_string(least) + " to " + std::to_string(most) +
           ". Received: " + std::to_string(value) + ".");
    return value;
  }
  bool flag() { return integer("A flag", 0, 1) != 0; }
  template <class Enum>
  Enum choice(const char* name, Enum last) {
    return static_cast<Enum>(integer(name, 0, static_cast<int64_t>(last)));
  }
  std::vector<int64_t> list(const char* name) {
    const int64_t count = integer(name, 0, kMostListed);
    std::vector<int64_t> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(integer());
    return values;
  }
  // A list of one value an axis.
  std::vector<int64_t> per_axis(const char* name) {
    std::vector<int64_t> values = list(name);
    if (values.size() > kMostAxes) fail(std::string(name) + " has more than 8 values.");
    return values;
  }
  Spec spec();
  HeightWidth height_width(const char* name);  // both positive
  std::vector<int64_t> axes();                 // at least one, in order, each once
  double number() {
    if (next_float_ >= d_.floats.size()) fail("An attribute is missing.");
    return d_.floats[next_float_++];
  }
  // A tensor of any dtype, or null.
  const TensorView* tensor() {
    if (next_tensor_ >= d_.tensors.size()) fail("A tensor is missing.");
    return d_.tensors[next_tensor_++];
  }
  // A tensor of this dtype, or null.
  const TensorView* tensor(DType dtype) {
    const TensorView* found = tensor();
    if (found != nullptr && found->dtype != dtype)
      fail("A tensor must be of " + std::string(name_of(dtype)) +
           ". Received: " + name_of(found->dtype) + ".");
    return found;
  }
  int inputs() const { return static_cast<int>(d_.inputs.size()); }

 private:
  static constexpr int64_t kMostListed = 64;
  const StepDescription& d_;
  size_t next_ = 0, next_float_ = 0, next_tensor_ = 0;
};

// Weights that a step keeps.
class KeptTensor {
 public:
  KeptTensor() = default;
  explicit KeptTensor(const TensorView* tensor)
      : bytes_(tensor == nullptr ? 0 : tensor->shape.elements() * itemsize(tensor->dtype)) {
    if (tensor == nullptr) return;
    const char* from = static_cast<const char*>(tensor->data);
    // Of 64-byte lines, since kernels load whole vectors.
    lines_.resize(static_cast<size_t>(bytes_) / sizeof(Line) + 1);
    __builtin_memcpy(lines_.data(), from, static_cast<size_t>(bytes_));
  }
  const void* get() const { return lines_.empty() ? nullptr : lines_.data(); }
  int64_t bytes() const { return bytes_; }

 private:
  struct alignas(64) Line {
    char bytes[64];
  };
  int64_t bytes_ = 0;
  std::vector<Line> lines_;
};

// The dtype of tensors with one number a channel, for values of this dtype: kernels take such
// numbers in float32 where values are of a half type.
constexpr DType number_dtype(DType dtype) { return dtype == DType::bf16 ? DType::f32 : dtype; }

// The bytes of an element of a packed kernel that mixes channels. Of bfloat16 they depend on the
// level: where it multiplies no bfloat16, the kernel is packed as float32.
inline int64_t packed_item(DType dtype) {
  return dtype == DType::bf16 ? packed_kernel_bytes(dtype, false, 64, 64) / (64 * 64)
                              : itemsize(dtype);
}

inline void require_rank(const Shape& shape, int least, int most) {
  if (shape.rank() < least || shape.rank() > most)
    fail("An input of " + std::to_string(least) +
         (least == most ? "" : " to " + std::to_string(most)) +
         " axes was expected. Received: shape " + shape.text() + ".");
}

// Throws where there is a tensor, and it is no vector of this size.
void require_size(const char* name, const TensorView* tensor, int64_t size);
// Throws where what is added to an output has another shape.
void require_residual(const Shape& residual, const Shape& output);

// [N, L, C] as an image one pixel high; [N, C, L] where channels are second. Images stay what they
// are.
Shape image(const Shape& x, bool channels_first);
// The geometry of a pool's windows over an input. Throws where a window sees padding alone.
Geometry pool_geometry(const Spec& spec, const HeightWidth& window, const Shape& input);
// The product of a dense layer as a 1x1 convolution of an image one pixel high, whose pixels are
// the vectors of `depth` elements along the input's last axis.
Geometry dense_geometry(const Shape& x, int64_t depth);
// Whether an array is an image [N, H, W, C], or could be one.
inline bool is_image(const Shape& shape) { return shape.rank() == 4; }
// The shape of a window's results with so many channels, of as many axes as its input has.
Shape result_shape(const Geometry& g, int64_t channels, int rank);

// What makes a step of its description. It gets the dtype of the step's first input, which all its
// inputs have; that of a constant, which has none, means nothing. The weights of convolutions lie
// in the memory.
using StepMaker = std::unique_ptr<Step>(const StepDescription&, DType, const Memory&);
StepMaker make_convolution, make_dense, make_scale, make_unary, make_binary, make_pool, make_reduce,
    make_concatenate, make_pad, make_slice, make_transpose, make_reshape, make_resize,
    make_layer_normalization, make_softmax, make_constant, make_cast;
// Of int8 inference.
StepMaker make_quantize, make_dequantize, make_lookup, make_quantized_convolution,
    make_quantized_dense, make_dequantized_convolution, make_dequantized_dense,
    make_quantized_binary, make_quantized_mean, make_quantized_average_pool;

}  // namespace sepconv::program
