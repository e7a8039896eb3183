// An argument of sepconv._native: an object with the buffer protocol, an address, or None.
#pragma once
#include <nanobind/nanobind.h>

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "huge_pages.h"
#include "operation.h"

namespace sepconv {

// A view of one argument, released with the object.
class Buffer {
 public:
  Buffer(const char* name, nanobind::handle object, int64_t elements, DType dtype, bool writable) {
    if (object.is_none()) return;
    const auto expected = static_cast<Py_ssize_t>(elements * itemsize(dtype));
    if (PyLong_Check(object.ptr())) {
      address_ = PyLong_AsVoidPtr(object.ptr());
      if (PyErr_Occurred()) throw nanobind::python_error();
      if (writable) prefer_huge_pages_here(address_, static_cast<size_t>(expected));
      return;
    }
    // The format is not asked for: the protocol has none for bfloat16.
    const int flags = PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nanobind::python_error();
    held_ = true;
    address_ = view_.buf;
    if (view_.len != expected) {
      const std::string message = std::string(name) + ": a buffer of " + std::to_string(expected) +
                                  " bytes was expected. Received: " + std::to_string(view_.len) +
                                  " bytes.";
      PyBuffer_Release(&view_);
      throw std::invalid_argument(message);
    }
    if (writable) prefer_huge_pages_here(address_, static_cast<size_t>(expected));
  }
  ~Buffer() {
    if (held_) PyBuffer_Release(&view_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* get() const { return address_; }
  // Refuses inputs that lie where this, an output, does. Bare addresses are the caller's business.
  void check_apart(std::initializer_list<const Buffer*> inputs) const {
    if (!held_) return;
    const char* const begin = static_cast<const char*>(address_);
    for (const Buffer* input : inputs) {
      const char* const other = static_cast<const char*>(input->address_);
      if (input->held_ && other < begin + view_.len && begin < other + input->view_.len)
        throw std::invalid_argument("out must not share memory with an input.");
    }
  }

 private:
  Py_buffer view_{};
  bool held_ = false;
  void* address_ = nullptr;
};

}  // namespace sepconv
