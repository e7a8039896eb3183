// The array operations of one instruction set and one dtype: compiled once for each, with
// SEPCONV_ISA_NAMESPACE, SEPCONV_VECTOR_BYTES, SEPCONV_REAL and SEPCONV_REPLACE
// (replace_arrays_f32 or replace_arrays_f64) given by the build.
#include "array_table.h"
#include "binary.h"
#include "move.h"
#include "normalize.h"
#include "pool.h"
#include "reduce.h"
#include "resize.h"
#include "unary.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

void SEPCONV_REPLACE(ArrayTable& table) {
  using T = SEPCONV_REAL;
  table = {.unary = &unary<T>,
           .binary = &binary<T>,
           .scale = &scale<T>,
           .pool = &pool_windows<T>,
           .reduce = &reduce<T>,
           .softmax = &softmax<T>,
           .layer_norm = &layer_norm<T>,
           .resize = &resize<T>,
           .copy = &copy<T>,
           .fill = &fill<T>};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
