// The array operations of one instruction set for one dtype, null where there is none; filled by
// instantiate_arrays.cc and instantiate_arrays_<dtype>.cc, level upon level (see levels.h), and
// picked in dispatch.cc.
#pragma once
#include "../array_operation.h"
#include "../threads.h"

namespace sepconv {

struct ArrayTable {
  void (*unary)(const UnaryStep&, Runner&) = nullptr;
  void (*binary)(const BinaryStep&, Runner&) = nullptr;
  void (*scale)(const ScaleStep&, Runner&) = nullptr;
  void (*pool)(const Geometry&, const PoolStep&, Runner&) = nullptr;
  void (*reduce)(const ReduceStep&, Runner&) = nullptr;
  void (*softmax)(const SoftmaxStep&, Runner&) = nullptr;
  void (*layer_norm)(const LayerNormStep&, Runner&) = nullptr;
  void (*resize)(const ResizeStep&, Runner&) = nullptr;
  void (*copy)(const CopyStep&, Runner&) = nullptr;
  void (*fill)(const FillStep&, Runner&) = nullptr;
  void (*cast)(const CastStep&, Runner&) = nullptr;  // to and from float32
};

// As in kernel_table.h.
#define SEPCONV_DECLARE_LEVEL(level)     \
  namespace level {                      \
  void replace_arrays_f32(ArrayTable&);  \
  void replace_arrays_f64(ArrayTable&);  \
  void replace_arrays_bf16(ArrayTable&); \
  void replace_arrays_u8(ArrayTable&);   \
  }
#if defined(SEPCONV_X86)
SEPCONV_DECLARE_LEVEL(v2)
SEPCONV_DECLARE_LEVEL(v3)
SEPCONV_DECLARE_LEVEL(v4)
#else
SEPCONV_DECLARE_LEVEL(baseline)
#endif
#undef SEPCONV_DECLARE_LEVEL

}  // namespace sepconv
