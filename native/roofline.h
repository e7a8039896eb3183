// Measures the machine's limits on `threads` threads, each for about `seconds`.
#pragma once
#include <cstdint>

#include "operation.h"

namespace sepconv {

// Floating-point operations per second of multiply-adds on registers alone, of the type in which
// products of such arrays are computed; a multiply-add counts as two. Of a half type these are
// float32's, or the instruction's that multiplies bfloat16 where the level in use has one.
SEPCONV_API double measure_fma(DType dtype, int threads, double seconds);

// Operations per second of the multiply-adds of int8 products, on registers alone.
SEPCONV_API double measure_int8(int threads, double seconds);

// Bytes per second, read or written, while all threads together stream through `bytes` of memory
// again and again: reading it, or copying one half onto the other, whichever moves more. Throws
// std::bad_alloc where there is no such memory.
SEPCONV_API double measure_bandwidth(int64_t bytes, int threads, double seconds);

}  // namespace sepconv
