// The functions of one instruction set for one dtype; filled by instantiate.cc and
// instantiate_half.cc, level upon level (see levels.h), and picked in dispatch.cc.
#pragma once
#include "../operation.h"
#include "../plan.h"
#include "../threads.h"

namespace sepconv {

struct KernelTable {
  void (*forward)(const Geometry&, const Forward&, Runner&) = nullptr;
  void (*backward)(const Geometry&, const Backward&, Runner&) = nullptr;
  void (*pointwise_forward)(const Pointwise&, const PointwiseForward&, Runner&) = nullptr;
  void (*pointwise_backward)(const Pointwise&, const PointwiseBackward&, Runner&) = nullptr;
  Plan (*plan)(const Geometry&, const Operation&, int64_t threads) = nullptr;
  Plan (*plan_pointwise)(const Pointwise&, Pass, bool packed, int64_t threads) = nullptr;
  int64_t (*packed_bytes)(bool channels_first, int64_t depth, int64_t filters) = nullptr;
  void (*pack_kernel)(bool channels_first, int64_t depth, int64_t filters, const void* kernel,
                      void* packed) = nullptr;
  // For measure_fma (roofline.h): of the half types, how fast the products that they take can be.
  int64_t (*fma_burst)(int64_t rounds, void* sink) = nullptr;
  // Of the half types, with numbers of channels in float32.
  void (*batch_norm_forward)(const BatchNorm&, const BatchNormForward&, Runner&) = nullptr;
  void (*batch_norm_backward)(const BatchNorm&, const BatchNormBackward&, Runner&) = nullptr;
  // These two are null for the half types.
  void (*normalized_depthwise_backward)(const Geometry&, const BatchNorm&,
                                        const NormalizedBackward&, Runner&) = nullptr;
  void (*normalized_product_backward)(const Pointwise&, const BatchNorm&, const NormalizedBackward&,
                                      Runner&) = nullptr;
  // For measure_bandwidth (roofline.h); null for the half types.
  void (*read_stream)(const void* from, int64_t count, void* sink) = nullptr;
  void (*copy_stream)(const void* from, void* to, int64_t count) = nullptr;
};

// Which levels a build has depends on its processor family (see CMakeLists.txt).
#define SEPCONV_DECLARE_LEVEL(level) \
  namespace level {                  \
  void replace_f32(KernelTable&);    \
  void replace_f64(KernelTable&);    \
  void replace_bf16(KernelTable&);   \
  void replace_f16(KernelTable&);    \
  }
#if defined(SEPCONV_X86)
SEPCONV_DECLARE_LEVEL(v2)
SEPCONV_DECLARE_LEVEL(v3)
SEPCONV_DECLARE_LEVEL(v4)
SEPCONV_DECLARE_LEVEL(v4_bf16)      // of which only the parts named in levels.cc
SEPCONV_DECLARE_LEVEL(v2_emulated)  // are there; these two for tests
SEPCONV_DECLARE_LEVEL(v4_emulated)
#else
SEPCONV_DECLARE_LEVEL(baseline)
SEPCONV_DECLARE_LEVEL(neon_bf16)
SEPCONV_DECLARE_LEVEL(neon_emulated)
#endif
#undef SEPCONV_DECLARE_LEVEL

// The kernels of the level in use (dispatch.cc), and those of float32.
const KernelTable& kernels_for(DType dtype);
const KernelTable& f32_kernels();

}  // namespace sepconv
