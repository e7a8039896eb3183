// Calls of a program that need no class of their own: functions, of elements too, and views.
#pragma once
#include <utility>

#include "step.h"

namespace sepconv::program {

// Runs function(inputs, output, runner).
template <class F>
class FunctionCall : public Call {
 public:
  explicit FunctionCall(F function) : function_(std::move(function)) {}
  void run(const void* const* inputs, void* output, Runner& runner) const override {
    function_(inputs, output, runner);
  }

 private:
  const F function_;
};

template <class F>
std::unique_ptr<Call> make_call(const Shape& shape, int in_place, bool by_images, F function) {
  auto call = std::make_unique<FunctionCall<F>>(std::move(function));
  call->shape = shape;
  call->in_place = in_place;
  call->by_images = by_images;
  return call;
}

// Computes elements by themselves: runs function(x, y, count, runner).
template <class F>
class ElementsCall : public Call {
 public:
  ElementsCall(const Shape& x, bool writes_over, F function) : function_(std::move(function)) {
    shape = x;
    in_place = writes_over ? 0 : -1;
    by_images = true;
  }
  void run(const void* const* inputs, void* output, Runner& runner) const override {
    function_(inputs[0], output, shape.elements(), runner);
  }
  bool by_rows() const override { return is_image(shape); }
  void run_rows(const RowsArguments& rows, Runner& runner) const override {
    function_(rows.x, rows.y, rows.computed.count() * shape[2] * shape[3], runner);
  }

 private:
  const F function_;
};

// `writes_over`: whether the output may take the input's memory.
template <class F>
std::unique_ptr<Call> elements_call(const Shape& x, bool writes_over, F function) {
  return std::make_unique<ElementsCall<F>>(x, writes_over, std::move(function));
}

// The input itself, seen in another shape.
class ViewCall : public Call {
 public:
  explicit ViewCall(const Shape& seen_as) {
    shape = seen_as;
    in_place = 0;
    view = true;
  }
  void run(const void* const*, void*, Runner&) const override {}
};

}  // namespace sepconv::program
