// The shape of an array in a program, and the errors of those that do not fit.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "../array_operation.h"

namespace sepconv::program {

[[noreturn]] inline void fail(const std::string& message) { throw std::invalid_argument(message); }

// Up to kMostAxes sizes, none negative, whose product has a number of bytes that memory could hold.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) {
    for (const int64_t size : sizes) append(size);
  }

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return sizes_[axis]; }
  const int64_t* sizes() const { return sizes_; }
  const int64_t* begin() const { return sizes_; }
  const int64_t* end() const { return sizes_ + rank_; }
  int64_t last() const { return sizes_[rank_ - 1]; }

  void append(int64_t size) {
    if (rank_ == kMostAxes) fail("An array has more than 8 axes.");
    sizes_[rank_] = size;
    ++rank_;
    set(rank_ - 1, size);
  }
  void set(int axis, int64_t size) {
    if (size < 0) fail("A size is negative: " + std::to_string(size) + ".");
    sizes_[axis] = size;
    check();
  }

  int64_t elements() const { return product(0, rank_); }
  // Of the axes from `first` to `last`, which is not one of them.
  int64_t product(int first, int last) const {
    int64_t count = 1;
    for (int i = first; i < last; ++i) count *= sizes_[i];
    return count;
  }

  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if (sizes_[i] != other.sizes_[i]) return false;
    return true;
  }

  std::string text() const {
    std::string all = "(";
    for (int i = 0; i < rank_; ++i) all += (i == 0 ? "" : ", ") + std::to_string(sizes_[i]);
    return all + (rank_ == 1 ? ",)" : ")");
  }

 private:
  // Sizes of 0 are left out, so that no product of some of the sizes overflows either.
  void check() const {
    int64_t bytes = 64;
    for (const int64_t size : *this)
      if (size != 0 && __builtin_mul_overflow(bytes, size, &bytes))
        fail("An array of the shape " + text() + " has more elements than memory can address.");
  }

  int rank_ = 0;
  int64_t sizes_[kMostAxes] = {};
};

// An axis, counted from 0.
inline int checked_axis(int64_t axis, int rank) {
  if (axis < 0 || axis >= rank)
    fail("axis must be 0 to " + std::to_string(rank - 1) + " for an array of " +
         std::to_string(rank) + " axes. Received: " + std::to_string(axis) + ".");
  return static_cast<int>(axis);
}

// The strides of a dense array in C order, in elements.
inline void dense_strides(const Shape& shape, int64_t* strides) {
  int64_t step = 1;
  for (int i = shape.rank(); i-- > 0;) {
    strides[i] = step;
    step *= shape[i];
  }
}

}  // namespace sepconv::program
