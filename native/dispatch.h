// How an operation is called: the entry points that the bindings use.
#pragma once
#include <cstdint>

#include "array_operation.h"
#include "operation.h"
#include "plan.h"
#include "threads.h"

namespace sepconv {

// All of these may be called from any number of threads at once. They throw std::bad_alloc where
// scratch memory cannot be had, and nothing else. Batches of no images are dealt with here: nothing
// is computed, and the sums over them are zeros.
SEPCONV_API void forward(DType dtype, const Geometry& g, const Forward& args, Runner& runner);
SEPCONV_API void backward(DType dtype, const Geometry& g, const Backward& args, Runner& runner);
SEPCONV_API void pointwise_forward(DType dtype, const Pointwise& p, const PointwiseForward& args,
                                   Runner& runner);
SEPCONV_API void pointwise_backward(DType dtype, const Pointwise& p, const PointwiseBackward& args,
                                    Runner& runner);
// What sums are made in, and so the dtype of batch normalization's numbers of a channel.
constexpr DType real_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }
SEPCONV_API void batch_norm_forward(DType dtype, const BatchNorm& s, const BatchNormForward& args,
                                    Runner& runner);
SEPCONV_API void batch_norm_backward(DType dtype, const BatchNorm& s, const BatchNormBackward& args,
                                     Runner& runner);

// The operations between convolutions (array_operation.h), of float32, float64 and bfloat16; of
// uint8 copy(), fill(), pool() to the largest number and resize() to the nearest pixel. They throw
// std::invalid_argument for another dtype. Where there are no elements, nothing is done. bfloat16
// has the numbers of ScaleStep and LayerNormStep in float32; its results are those of float32,
// rounded once.
SEPCONV_API void unary(DType dtype, const UnaryStep& step, Runner& runner);
SEPCONV_API void binary(DType dtype, const BinaryStep& step, Runner& runner);
SEPCONV_API void scale(DType dtype, const ScaleStep& step, Runner& runner);
SEPCONV_API void pool(DType dtype, const Geometry& g, const PoolStep& step, Runner& runner);
SEPCONV_API void reduce(DType dtype, const ReduceStep& step, Runner& runner);
SEPCONV_API void softmax(DType dtype, const SoftmaxStep& step, Runner& runner);
SEPCONV_API void layer_norm(DType dtype, const LayerNormStep& step, Runner& runner);
SEPCONV_API void resize(DType dtype, const ResizeStep& step, Runner& runner);
SEPCONV_API void copy(DType dtype, const CopyStep& step, Runner& runner);
SEPCONV_API void fill(DType dtype, const FillStep& step, Runner& runner);
// From float32 to `dtype`, or back.
SEPCONV_API void cast(DType dtype, const CastStep& step, Runner& runner);

// A kernel that mixes channels, as a matrix [depth, filters] (see operation.h), in the order in
// which the products of such a layout read it, for who calls with the same one again and again. In
// the types that sums are made in: the half types' is float32.
SEPCONV_API int64_t packed_kernel_bytes(DType dtype, bool channels_first, int64_t depth,
                                        int64_t filters);
SEPCONV_API void pack_pointwise_kernel(DType dtype, bool channels_first, int64_t depth,
                                       int64_t filters, const void* kernel, void* packed);

// How an operation would go on so many threads, found without running it; of no images, in no
// steps. The half types' is that of float32 as if all images went through together, but that of a
// 1x1 convolution alone their own. Weights or sums that are not finite are left to the loops of
// kernels/exact.h. Throws std::invalid_argument where such an operation has no such pass.
SEPCONV_API Plan make_plan(DType dtype, const Geometry& g, const Operation& operation, int threads);
SEPCONV_API Plan make_plan(DType dtype, const Pointwise& p, Pass pass, bool packed, int threads);

// The enum value of a number from a binding. Throws std::invalid_argument for an unknown number.
SEPCONV_API DType dtype_of(int64_t code);
SEPCONV_API Activation activation_of(int64_t code);

// The instruction-set level in use: "x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4-vnni",
// "x86-64-v4-bf16", "neon", "neon-dotprod", "neon-i8mm", "neon-bf16" or "generic". Chosen at the
// first call, by the processor or by the environment variable SEPCONV_ISA; throws
// std::invalid_argument where that names a level unknown or not runnable here.
SEPCONV_API const char* isa_name();

}  // namespace sepconv
