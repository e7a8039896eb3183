// Measures the machine's limits for float32 on `threads` threads, each for about `seconds`.
#pragma once
#include <cstdint>

#include "geometry.h"

namespace sepconv {

// Floating-point operations per second of multiply-adds on registers alone; a multiply-add counts
// as two.
SEPCONV_API double measure_fma(int threads, double seconds);

// Bytes per second, read or written, while all threads together stream through `bytes` of memory
// again and again: reading it, or copying one half onto the other, whichever moves more. Throws
// std::bad_alloc where there is no such memory.
SEPCONV_API double measure_bandwidth(int64_t bytes, int threads, double seconds);

}  // namespace sepconv
