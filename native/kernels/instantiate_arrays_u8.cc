// The array operations of one instruction set for uint8: compiled once a level, with
// SEPCONV_ISA_NAMESPACE and SEPCONV_VECTOR_BYTES given by the build.
#include "array_table.h"
#include "bytes.h"
#include "move.h"
#include "resize.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

void replace_arrays_u8(ArrayTable& table) {
  table = {.pool = &pool_bytes,
           .resize = &resize_nearest<uint8_t>,
           .copy = &copy<uint8_t>,
           .fill = &fill_bytes};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
