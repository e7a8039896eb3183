// The Python module sepconv._xla: the convolution, batch normalization and their gradients as XLA
// FFI handlers.
//
// XLA passes dense buffers in C order and the attributes below; work runs on XLA's own threads.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <array>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "dispatch.h"
#include "huge_pages.h"
#include "xla/ffi/api/ffi.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;

namespace {

using Integers = ffi::Span<const int64_t>;

// Which operands a call has is told by bits (see operation.h). Programs exported while the operands
// had another order give that attribute another name, which XLA refuses.
using sepconv::kBias, sepconv::kDepthwise, sepconv::kDepthwiseBias, sepconv::kPointwise,
    sepconv::kResidual, sepconv::kX;

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

sepconv::DType dtype_of(const ffi::AnyBuffer& buffer) {
  if (buffer.element_type() == ffi::F32) return sepconv::DType::f32;
  if (buffer.element_type() == ffi::F64) return sepconv::DType::f64;
  if (buffer.element_type() == ffi::BF16) return sepconv::DType::bf16;
  if (buffer.element_type() == ffi::F16) return sepconv::DType::f16;
  fail("sepconv's operations take float32, float64, bfloat16 or float16.");
}

sepconv::Geometry geometry_of(Integers spec, Integers x_shape, Integers kernel_shape) {
  if (spec.size() != sepconv::kSpecSize || x_shape.size() != 4 || kernel_shape.size() != 4)
    fail("spec, x's shape or the kernel's has a wrong number of integers.");
  const int64_t* s = spec.begin();
  const sepconv::Spec plain{s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9]};
  return sepconv::resolve(plain, x_shape.begin(), kernel_shape.begin());
}

// The address of a buffer, once it is known to be of one dtype and a given number of elements.
void* address(const char* name, const ffi::AnyBuffer& buffer, sepconv::DType dtype,
              int64_t elements) {
  if (dtype_of(buffer) != dtype) fail(std::string(name) + " has another dtype than the rest.");
  if (static_cast<int64_t>(buffer.element_count()) != elements)
    fail(std::string(name) + ": " + std::to_string(elements) +
         " elements were expected. Received: " + std::to_string(buffer.element_count()) + ".");
  return buffer.untyped_data();
}

// Returns a call's operands or results in order.
class Operands {
 public:
  explicit Operands(ffi::RemainingArgs buffers) : buffers_(buffers) {}
  ffi::AnyBuffer next() {
    auto buffer = buffers_.get<ffi::AnyBuffer>(index_++);
    if (!buffer) fail("An operand is missing.");
    return *buffer;
  }
  void end() const {
    if (index_ != buffers_.size()) fail("There are more operands than expected.");
  }

 private:
  ffi::RemainingArgs buffers_;
  size_t index_ = 0;
};

class Results {
 public:
  explicit Results(ffi::RemainingRets buffers) : buffers_(buffers) {}
  ffi::AnyBuffer next() {
    auto buffer = buffers_.get<ffi::AnyBuffer>(index_++);
    if (!buffer) fail("A result is missing.");
    sepconv::prefer_huge_pages((**buffer).untyped_data(), (**buffer).size_bytes());
    return **buffer;
  }
  void end() const {
    if (index_ != buffers_.size()) fail("There are more results than expected.");
  }

 private:
  ffi::RemainingRets buffers_;
  size_t index_ = 0;
};

// Where XLA gives no pool, num_threads() is 0 and the caller does all the work.
sepconv::ExternalRunner runner_on(ffi::ThreadPool& pool) {
  const int64_t threads = std::clamp<int64_t>(pool.num_threads(), 1, sepconv::kMaxThreads);
  return sepconv::external_runner(
      &pool,
      [](void* scheduler, void (*job)(void*), void* argument) {
        static_cast<ffi::ThreadPool*>(scheduler)->Schedule([job, argument] { job(argument); });
      },
      static_cast<int>(threads));
}

// Nothing may be thrown through XLA.
template <class Work>
ffi::Error guarded(Work work) {
  try {
    work();
    return ffi::Error::Success();
  } catch (const std::invalid_argument& error) {
    return ffi::Error::InvalidArgument(error.what());
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      "sepconv: there is no memory for a kernel's scratch buffers.");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

// The shape of the depthwise kernel whose geometry an ordinary convolution of x has: its own
// kernel's height and width. A matrix of weights is the kernel of a 1x1 convolution.
std::array<int64_t, 4> window_of(Integers kernel_shape, int64_t channels) {
  if (kernel_shape.size() == 2) return {1, 1, channels, 1};
  if (kernel_shape.size() != 4) fail("pointwise_kernel must have 4 axes.");
  return {kernel_shape.begin()[0], kernel_shape.begin()[1], channels, 1};
}

// y from x and those of the operands that `given` names: without depthwise_kernel it is an ordinary
// convolution, and without pointwise_kernel the depthwise convolution alone.
ffi::Error forward(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::RemainingArgs rest,
                   ffi::Result<ffi::AnyBuffer> y, Integers spec, int64_t given,
                   int64_t depthwise_activation, int64_t activation) {
  return guarded([&] {
    const auto x_dims = x.dimensions();
    const auto y_dims = y->dimensions();
    if (x_dims.size() != 4 || y_dims.size() != 4) fail("x and y must have 4 axes.");
    if (spec.size() != sepconv::kSpecSize) fail("spec has a wrong number of integers.");
    const bool first = spec.begin()[sepconv::kSpecSize - 1] != 0;
    const bool convolved = (given & kDepthwise) != 0, separable = (given & kPointwise) != 0;
    if (!separable && !convolved) fail("There is no kernel.");
    if (!convolved && (given & kDepthwiseBias)) fail("There is no depthwise_kernel.");
    Operands operands(rest);
    ffi::AnyBuffer kernel = operands.next();  // the first, and without a depthwise one the only
    const auto window = convolved ? std::array<int64_t, 4>{}
                                  : window_of(kernel.dimensions(), x_dims[first ? 1 : 3]);
    const auto g =
        geometry_of(spec, x_dims, convolved ? kernel.dimensions() : Integers(window.data(), 4));
    const auto dtype = dtype_of(x);
    const int64_t cm = g.c * g.m, pixels = g.n * g.ho * g.wo;
    const int64_t filters = separable ? y_dims[first ? 1 : 3] : cm;
    sepconv::Forward args{};
    args.x = address("x", x, dtype, g.n * g.h * g.w * g.c);
    if (convolved)
      args.depthwise_kernel = address("depthwise_kernel", kernel, dtype, g.kh * g.kw * cm);
    if (given & kDepthwiseBias)
      args.depthwise_bias = address("depthwise_bias", operands.next(), dtype, cm);
    if (separable) {
      if (filters < 1) fail("pointwise_kernel must have filters.");
      args.pointwise_kernel = address("pointwise_kernel", convolved ? operands.next() : kernel,
                                      dtype, args.depth(g) * filters);
      args.filters = filters;
    }
    if (given & kBias) args.bias = address("bias", operands.next(), dtype, filters);
    if (given & kResidual)
      args.residual = address("residual", operands.next(), dtype, pixels * filters);
    operands.end();
    args.depthwise_activation = sepconv::activation_of(depthwise_activation);
    args.activation = sepconv::activation_of(activation);
    sepconv::prefer_huge_pages(y->untyped_data(), y->size_bytes());
    args.y = address("y", *y, dtype, pixels * filters);
    auto runner = runner_on(pool);
    sepconv::forward(dtype, g, args, runner);
  });
}

// The gradients that `wanted` names from dy and those of x, depthwise_kernel and pointwise_kernel
// that `given` names: what no wanted gradient needs is not passed. `size` is x's height and width.
ffi::Error backward(ffi::ThreadPool pool, ffi::AnyBuffer dy, ffi::RemainingArgs rest,
                    ffi::RemainingRets gradients, Integers spec, Integers size,
                    Integers kernel_shape, int64_t separable, int64_t given, int64_t wanted) {
  return guarded([&] {
    const auto dims = dy.dimensions();
    if (dims.size() != 4) fail("dy must have 4 axes.");
    if (spec.size() != sepconv::kSpecSize || size.size() != 2 || kernel_shape.size() != 4)
      fail("spec, size or kernel_shape has a wrong number of integers.");
    const int64_t n = dims[0], h = size.begin()[0], w = size.begin()[1];
    const int64_t c = kernel_shape.begin()[2];
    const bool first = spec.begin()[sepconv::kSpecSize - 1] != 0;
    const std::array<int64_t, 4> x_shape =
        first ? std::array<int64_t, 4>{n, c, h, w} : std::array<int64_t, 4>{n, h, w, c};
    const auto g = geometry_of(spec, Integers(x_shape.data(), 4), kernel_shape);
    const auto dtype = dtype_of(dy);
    const int64_t cm = g.c * g.m;
    const int64_t x_size = g.n * g.h * g.w * g.c;
    const int64_t depthwise_size = g.kh * g.kw * cm;
    const int64_t filters = dims[g.channels_first ? 1 : 3];
    if (separable == 0 ? filters != cm : filters < 1) fail("dy has a wrong number of channels.");
    if (((wanted & (kDepthwise | kPointwise)) != 0 && (given & kX) == 0) ||
        ((wanted & (kX | kPointwise)) != 0 && (given & kDepthwise) == 0) ||
        (separable != 0 && (wanted & (kX | kDepthwise)) != 0 && (given & kPointwise) == 0))
      fail("An operand that a wanted gradient needs is not given.");
    Operands operands(rest);
    Results results(gradients);
    sepconv::Backward args{};
    if (given & kX) args.x = address("x", operands.next(), dtype, x_size);
    if (given & kDepthwise)
      args.depthwise_kernel = address("depthwise_kernel", operands.next(), dtype, depthwise_size);
    if (given & kPointwise)
      args.pointwise_kernel = address("pointwise_kernel", operands.next(), dtype, cm * filters);
    operands.end();
    args.filters = separable != 0 ? filters : 0;
    args.dy = address("dy", dy, dtype, g.n * g.ho * g.wo * filters);
    if (wanted & kX) args.dx = address("dx", results.next(), dtype, x_size);
    if (wanted & kDepthwise)
      args.ddepthwise = address("ddepthwise", results.next(), dtype, depthwise_size);
    if (wanted & kPointwise)
      args.dpointwise = address("dpointwise", results.next(), dtype, cm * filters);
    if (wanted & kBias) args.dbias = address("dbias", results.next(), dtype, filters);
    results.end();
    auto runner = runner_on(pool);
    sepconv::backward(dtype, g, args, runner);
  });
}

// The same for the 1x1 product alone: the gradients of x and pointwise_kernel from dy and what of
// the two is given.
ffi::Error pointwise_backward(ffi::ThreadPool pool, ffi::AnyBuffer dy, ffi::RemainingArgs rest,
                              ffi::RemainingRets gradients, int64_t channels,
                              int64_t channels_first, int64_t given, int64_t wanted) {
  return guarded([&] {
    const auto dims = dy.dimensions();
    if (dims.size() != 4 || channels < 1) fail("dy must have 4 axes, and x some channels.");
    const bool first = channels_first != 0;
    const sepconv::Pointwise p{dims[0], first ? dims[2] * dims[3] : dims[1] * dims[2], channels,
                               dims[first ? 1 : 3], first};
    if (((wanted & kPointwise) != 0 && (given & kX) == 0) ||
        ((wanted & kX) != 0 && (given & kPointwise) == 0))
      fail("An operand that a wanted gradient needs is not given.");
    const auto dtype = dtype_of(dy);
    const int64_t x_size = p.images * p.pixels * p.channels, k_size = p.channels * p.filters;
    Operands operands(rest);
    Results results(gradients);
    sepconv::PointwiseBackward args{};
    if (given & kX) args.x = address("x", operands.next(), dtype, x_size);
    if (given & kPointwise)
      args.pointwise_kernel = address("pointwise_kernel", operands.next(), dtype, k_size);
    operands.end();
    args.dy = dy.untyped_data();
    if (wanted & kX) args.dx = address("dx", results.next(), dtype, x_size);
    if (wanted & kPointwise) args.dpointwise = address("dpointwise", results.next(), dtype, k_size);
    results.end();
    auto runner = runner_on(pool);
    sepconv::pointwise_backward(dtype, p, args, runner);
  });
}

// The sizes of a batch normalization over all axes of x but one.
sepconv::BatchNorm batch_norm_of(Integers x_shape, int64_t axis, double epsilon) {
  const auto rank = static_cast<int64_t>(x_shape.size());
  if (axis < 0 || axis >= rank) fail("axis must be one of x's.");
  sepconv::BatchNorm s{1, x_shape.begin()[axis], 1, epsilon};
  for (int64_t i = 0; i < rank; ++i) {
    if (i < axis) s.outer *= x_shape.begin()[i];
    if (i > axis) s.inner *= x_shape.begin()[i];
  }
  return s;
}

// The mean and variance of each channel alone: XLA makes y of them together with what follows it.
ffi::Error moments(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> mean,
                   ffi::Result<ffi::AnyBuffer> variance, int64_t axis) {
  return guarded([&] {
    const auto dtype = dtype_of(x), real = sepconv::real_dtype(dtype);
    const auto s = batch_norm_of(x.dimensions(), axis, 0);
    sepconv::BatchNormForward args{};
    args.x = x.untyped_data();
    args.mean = address("mean", *mean, real, s.channels);
    args.variance = address("variance", *variance, real, s.channels);
    auto runner = runner_on(pool);
    sepconv::batch_norm_forward(dtype, s, args, runner);
  });
}

// And the gradients of gamma and beta alone, which are all the sums that dx is made of.
ffi::Error batch_norm_sums(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer mean,
                           ffi::AnyBuffer variance, ffi::AnyBuffer dy,
                           ffi::Result<ffi::AnyBuffer> dgamma, ffi::Result<ffi::AnyBuffer> dbeta,
                           int64_t axis, double epsilon) {
  return guarded([&] {
    const auto dtype = dtype_of(x), real = sepconv::real_dtype(dtype);
    const auto s = batch_norm_of(x.dimensions(), axis, epsilon);
    sepconv::BatchNormBackward args{};
    args.x = x.untyped_data();
    args.mean = address("mean", mean, real, s.channels);
    args.variance = address("variance", variance, real, s.channels);
    args.dy = address("dy", dy, dtype, s.outer * s.channels * s.inner);
    args.dgamma = address("dgamma", *dgamma, real, s.channels);
    args.dbeta = address("dbeta", *dbeta, real, s.channels);
    auto runner = runner_on(pool);
    sepconv::batch_norm_backward(dtype, s, args, runner);
  });
}

XLA_FFI_DEFINE_HANDLER(moments_handler, moments,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<int64_t>("axis"));

XLA_FFI_DEFINE_HANDLER(batch_norm_sums_handler, batch_norm_sums,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Arg<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<int64_t>("axis")
                           .Attr<double>("epsilon"));

XLA_FFI_DEFINE_HANDLER(forward_handler, forward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .Ret<ffi::AnyBuffer>()
                           .Attr<Integers>("spec")
                           .Attr<int64_t>("operands")
                           .Attr<int64_t>("depthwise_activation")
                           .Attr<int64_t>("activation"));

XLA_FFI_DEFINE_HANDLER(backward_handler, backward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .RemainingRets()
                           .Attr<Integers>("spec")
                           .Attr<Integers>("size")
                           .Attr<Integers>("kernel_shape")
                           .Attr<int64_t>("separable")
                           .Attr<int64_t>("operands")
                           .Attr<int64_t>("wanted"));

XLA_FFI_DEFINE_HANDLER(pointwise_backward_handler, pointwise_backward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::ThreadPool>()
                           .Arg<ffi::AnyBuffer>()
                           .RemainingArgs()
                           .RemainingRets()
                           .Attr<int64_t>("channels")
                           .Attr<int64_t>("channels_first")
                           .Attr<int64_t>("operands")
                           .Attr<int64_t>("wanted"));

nb::capsule capsule_of(XLA_FFI_Handler* handler) {
  return nb::capsule(reinterpret_cast<void*>(handler));
}

}  // namespace

NB_MODULE(_xla, m) {
  m.def("registrations", [] {
    nb::dict handlers;
    handlers["sepconv_forward"] = capsule_of(forward_handler);
    handlers["sepconv_backward"] = capsule_of(backward_handler);
    handlers["sepconv_pointwise_backward"] = capsule_of(pointwise_backward_handler);
    handlers["sepconv_moments"] = capsule_of(moments_handler);
    handlers["sepconv_batch_norm_sums"] = capsule_of(batch_norm_sums_handler);
    return handlers;
  });
  // The FFI version of the headers: XLA takes a handler of at most its own.
  m.attr("api_version") = nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR);
}
