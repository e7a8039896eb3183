// Programs for Python: made from plain values, run on NumPy arrays without the GIL.
#include "bind_program.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <bit>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "gil.h"
#include "program/program.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using sepconv::DType;
using sepconv::program::Program;
using sepconv::program::Shape;

// The dtype of a buffer's format, whose bytes are in this machine's order. NumPy has no bfloat16,
// whose bits are 16-bit integers; see src/sepconv/program/dtypes.py.
DType dtype_of_format(const char* format, Py_ssize_t itemsize) {
  // A format may say its byte order.
  constexpr bool kLittle = std::endian::native == std::endian::little;
  if (format == nullptr) format = "B";
  if (*format == '@' || *format == '=' || *format == (kLittle ? '<' : '>')) ++format;
  const std::string code(format);
  if (code == "f") return DType::f32;
  if (code == "d") return DType::f64;
  if (code == "H") return DType::bf16;
  if (code == "B") return DType::u8;
  if (code == "b") return DType::i8;
  if ((code == "i" || code == "l") && itemsize == 4) return DType::i32;
  throw std::invalid_argument("An array of a dtype of programs was expected.");
}

// A C-contiguous array, held while this lives.
class Array {
 public:
  Array(nb::handle object, bool writable) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nb::python_error();
    held_ = true;
    try {
      dtype_ = dtype_of_format(view_.format, view_.itemsize);
      for (int i = 0; i < view_.ndim; ++i) shape_.append(view_.shape[i]);
    } catch (...) {
      PyBuffer_Release(&view_);
      throw;
    }
  }
  ~Array() {
    if (held_) PyBuffer_Release(&view_);
  }
  Array(Array&& other) noexcept
      : view_(other.view_),
        held_(std::exchange(other.held_, false)),
        dtype_(other.dtype_),
        shape_(other.shape_) {}
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  Array& operator=(Array&&) = delete;

  void* data() const { return view_.buf; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  bool meets(const Array& other) const {
    const char *mine = static_cast<const char*>(view_.buf),
               *its = static_cast<const char*>(other.view_.buf);
    return mine < its + other.view_.len && its < mine + view_.len;
  }

 private:
  Py_buffer view_{};
  bool held_ = false;
  DType dtype_ = DType::f32;
  Shape shape_;
};

Shape shape_of(nb::handle sizes) {
  Shape shape;
  for (nb::handle size : nb::borrow<nb::sequence>(sizes)) shape.append(nb::cast<int64_t>(size));
  return shape;
}

std::vector<Shape> shapes_of(nb::sequence shapes) {
  std::vector<Shape> all;
  for (nb::handle shape : shapes) all.push_back(shape_of(shape));
  return all;
}

nb::tuple tuple_of(const Shape& shape) {
  nb::list sizes;
  for (const int64_t size : shape) sizes.append(size);
  return nb::tuple(sizes);
}

// From steps (operation, name, inputs, ints, floats, tensors), whose tensors are numbers or None.
void make(Program* self, int dtype, std::vector<std::vector<int64_t>> inputs, nb::sequence steps,
          std::vector<int> outputs, nb::sequence tensors,
          std::optional<std::array<int64_t, 3>> tuning) {
  sepconv::program::NetworkDescription network{
      sepconv::dtype_of(dtype), std::move(inputs), {}, std::move(outputs)};
  if (tuning) network.tuning = {(*tuning)[0], (*tuning)[1], (*tuning)[2]};
  std::vector<Array> arrays;
  std::vector<sepconv::program::TensorView> views;
  for (nb::handle tensor : tensors) arrays.emplace_back(tensor, false);
  for (const Array& array : arrays) views.push_back({array.shape(), array.data(), array.dtype()});
  for (nb::handle handle : steps) {
    const auto step = nb::cast<nb::tuple>(handle);
    if (step.size() != 6) throw std::invalid_argument("A step has six parts.");
    sepconv::program::StepDescription d{
        nb::cast<std::string>(step[0]),         nb::cast<std::string>(step[1]),
        nb::cast<std::vector<int>>(step[2]),    nb::cast<std::vector<int64_t>>(step[3]),
        nb::cast<std::vector<double>>(step[4]), {}};
    for (nb::handle number : nb::cast<nb::sequence>(step[5])) {
      if (number.is_none()) {
        d.tensors.push_back(nullptr);
        continue;
      }
      const auto index = nb::cast<int64_t>(number);
      if (index < 0 || static_cast<size_t>(index) >= views.size())
        throw std::invalid_argument("There is no tensor of the number " + std::to_string(index) +
                                    ".");
      d.tensors.push_back(&views[static_cast<size_t>(index)]);
    }
    network.steps.push_back(std::move(d));
  }
  const sepconv::WithoutGil released;
  new (self) Program(network);
}

// The arrays of a call, checked.
class Arguments {
 public:
  Arguments(const Program& program, nb::sequence inputs, nb::sequence outputs) {
    std::vector<Array>* lists[] = {&inputs_, &outputs_};
    const nb::sequence given[] = {inputs, outputs};
    for (int i = 0; i < 2; ++i)
      for (nb::handle array : given[i]) {
        lists[i]->emplace_back(array, i == 1);
        if (lists[i]->back().dtype() != program.dtype())
          throw std::invalid_argument("An array of the program's dtype was expected.");
      }
    for (const Array& array : inputs_) {
      shapes.push_back(array.shape());
      in.push_back(array.data());
    }
    for (const Array& array : outputs_) out.push_back(array.data());
    const std::vector<Shape> expected = program.output_shapes(shapes);
    if (outputs_.size() != expected.size())
      throw std::invalid_argument("out must hold " + std::to_string(expected.size()) +
                                  " arrays. Received: " + std::to_string(outputs_.size()) + ".");
    for (size_t i = 0; i < expected.size(); ++i) {
      if (!(outputs_[i].shape() == expected[i]))
        throw std::invalid_argument("out must have the shape " + expected[i].text() +
                                    ". Received: shape " + outputs_[i].shape().text() + ".");
      for (const Array& input : inputs_) check_apart(outputs_[i], input);
      for (size_t k = 0; k < i; ++k) check_apart(outputs_[i], outputs_[k]);
    }
  }

  std::vector<Shape> shapes;
  std::vector<const void*> in;
  std::vector<void*> out;

 private:
  static void check_apart(const Array& output, const Array& other) {
    if (output.meets(other))
      throw std::invalid_argument("out must not share memory with an input or another output.");
  }
  std::vector<Array> inputs_, outputs_;
};

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<Program>(m, "Program")
      .def("__init__", &make, "dtype"_a, "inputs"_a, "steps"_a, "outputs"_a, "tensors"_a,
           "tuning"_a.none() = nb::none())
      .def("output_shapes",
           [](const Program& program, nb::sequence inputs) {
             nb::list shapes;
             for (const Shape& shape : program.output_shapes(shapes_of(inputs)))
               shapes.append(tuple_of(shape));
             return shapes;
           })
      .def("run",
           [](const Program& program, nb::sequence inputs, nb::sequence outputs) {
             const Arguments arguments(program, inputs, outputs);
             const sepconv::WithoutGil released;
             program.run(arguments.shapes, arguments.in.data(), arguments.out.data());
           })
      // A list of (operation, name, shape, multiply_adds, weight_bytes, seconds, plan), a step
      // each.
      .def("profile",
           [](const Program& program, nb::sequence inputs, nb::sequence outputs) {
             const Arguments arguments(program, inputs, outputs);
             std::vector<sepconv::program::StepReport> reports;
             {
               const sepconv::WithoutGil released;
               reports =
                   program.profile(arguments.shapes, arguments.in.data(), arguments.out.data());
             }
             nb::list rows;
             for (const auto& r : reports)
               rows.append(nb::make_tuple(r.operation, r.name, tuple_of(r.shape), r.multiply_adds,
                                          r.weight_bytes, r.seconds, r.plan));
             return rows;
           })
      // (weights, arena, naive), in bytes.
      .def("memory", [](const Program& program, nb::sequence inputs) {
        const sepconv::program::MemoryUse use = program.memory(shapes_of(inputs));
        return nb::make_tuple(use.weights, use.arena, use.naive);
      });
}
