// The int8 operations of one instruction set; filled by instantiate_int8.cc, level upon level (see
// levels.h), and called by quantized.cc.
#pragma once
#include "../quantized_operation.h"
#include "../threads.h"

namespace sepconv {

struct Int8Table {
  int64_t (*packed_bytes)(const QuantizedWeights&) = nullptr;
  void (*pack)(const QuantizedWeights&, void* packed) = nullptr;
  void (*forward)(const Geometry&, const QuantizedWeights&, const QuantizedForward<uint8_t>&,
                  Runner&) = nullptr;
  void (*forward_floats)(const Geometry&, const QuantizedWeights&, const QuantizedForward<float>&,
                         Runner&) = nullptr;
  QuantizedPlan (*plan)(const Geometry&, const QuantizedWeights&, int threads) = nullptr;
  void (*quantize)(const QuantizeStep&, Runner&) = nullptr;
  void (*dequantize)(const DequantizeStep&, Runner&) = nullptr;
  void (*lookup)(const LookupStep&, Runner&) = nullptr;
  void (*binary)(const QuantizedBinaryStep&, Runner&) = nullptr;
  void (*mean)(const QuantizedMeanStep&, Runner&) = nullptr;
  void (*average_pool)(const Geometry&, const QuantizedAveragePoolStep&, Runner&) = nullptr;
  // For measure_int8 (roofline.h).
  int64_t (*dot_burst)(int64_t rounds, void* sink) = nullptr;
};

// As in kernel_table.h.
#define SEPCONV_DECLARE_LEVEL(level) \
  namespace level {                  \
  void replace_int8(Int8Table&);     \
  }
#if defined(SEPCONV_X86)
SEPCONV_DECLARE_LEVEL(v2)
SEPCONV_DECLARE_LEVEL(v3)
SEPCONV_DECLARE_LEVEL(v4)
SEPCONV_DECLARE_LEVEL(v4_vnni)
#else
SEPCONV_DECLARE_LEVEL(baseline)
SEPCONV_DECLARE_LEVEL(neon_dotprod)
SEPCONV_DECLARE_LEVEL(neon_i8mm)
#endif
#undef SEPCONV_DECLARE_LEVEL

// The operations of the level in use (dispatch.cc).
const Int8Table& int8_kernels();

}  // namespace sepconv
