// A function of two arrays, one of which may be repeated along axes, as a call of a program.
#pragma once
#include "step.h"

namespace sepconv::program {

// The shape of two arrays together, by NumPy's rule, and an array's strides in it: 0 along axes
// that it is broadcast over.
Shape broadcast(const Shape& a, const Shape& b);
void broadcast_strides(const Shape& shape, const Shape& all, int64_t* strides);

// `Arguments` is a BinaryStep, or has the same shape and strides.
template <class Arguments>
class BroadcastCall : public Call {
 public:
  void run(const void* const* inputs, void* output, Runner& runner) const override {
    apply(arguments_, inputs[0], inputs[1], output, runner);
  }
  bool by_rows() const override { return is_image(shape) && in_place == 0; }
  void run_rows(const RowsArguments& rows, Runner& runner) const override {
    Arguments here = arguments_;
    here.shape[0] = 1;
    here.shape[1] = rows.computed.count();
    const int64_t before =
        rows.image * arguments_.b_strides[0] + rows.computed.first * arguments_.b_strides[1];
    apply(here, rows.x, static_cast<const char*>(rows.all) + before * item_, rows.y, runner);
  }

 protected:
  // `item`: the bytes of an element of the arrays.
  BroadcastCall(const Arguments& arguments, int64_t item, const Shape& a, const Shape& b)
      : arguments_(arguments), item_(item) {
    shape = broadcast(a, b);
    in_place = a == shape ? 0 : b == shape ? 1 : -1;
    by_images = a.rank() == b.rank() && a.rank() > 0 && a[0] == b[0];
    arguments_.rank = shape.rank();
    for (int i = 0; i < shape.rank(); ++i) arguments_.shape[i] = shape[i];
    broadcast_strides(a, shape, arguments_.a_strides);
    broadcast_strides(b, shape, arguments_.b_strides);
  }
  virtual void apply(Arguments here, const void* a, const void* b, void* y,
                     Runner& runner) const = 0;

 private:
  Arguments arguments_;
  const int64_t item_;
};

}  // namespace sepconv::program
