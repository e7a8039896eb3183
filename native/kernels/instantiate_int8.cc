// The int8 operations of one instruction set: compiled once for each, with SEPCONV_ISA_NAMESPACE
// and SEPCONV_VECTOR_BYTES given by the build, and without contraction, since each operation of
// float32 is rounded by itself.
#include "int8_arrays.h"
#include "int8_separable.h"
#include "int8_table.h"
#include "roofline.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

int64_t burst(int64_t rounds, void* sink) {
  return product_burst<ByteProduct>(rounds, static_cast<int32_t*>(sink));
}

}  // namespace

void replace_int8(Int8Table& table) {
  table = {.packed_bytes = &packed_int8_bytes,
           .pack = &pack_int8,
           .forward = &forward_int8<uint8_t>,
           .forward_floats = &forward_int8<float>,
           .plan = &plan_int8,
           .quantize = &quantize_bytes,
           .dequantize = &dequantize_bytes,
           .lookup = &lookup_bytes,
           .binary = &binary_bytes,
           .mean = &mean_bytes,
           .average_pool = &average_pool_bytes,
           .dot_burst = &burst};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
