// Measures the machine's limits for float32 on `threads` threads, each for about `seconds`.
#pragma once
#include <cstdint>

#include "geometry.h"

namespace sepconv {

// Operations a second where nothing but multiply-adds on registers runs; one counts as two.
SEPCONV_API double measure_fma(int threads, double seconds);

// Bytes a second, read or written, where all threads together stream through `bytes` of memory
// again and again: read alone, or half of it copied onto the other half, whichever moves more.
// Throws std::bad_alloc where there is no such memory.
SEPCONV_API double measure_bandwidth(int64_t bytes, int threads, double seconds);

}  // namespace sepconv
