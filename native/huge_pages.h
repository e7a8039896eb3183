// Huge pages for large arrays that an engine has just got from the system.
#pragma once
#include <cstddef>

#include "geometry.h"

namespace sepconv {

// Asks the system for huge pages for an array that a kernel is about to write, and for the whole
// mapping that contains it, since an engine may have all arrays of a step in one mapping, new at
// every step. Does nothing for small arrays, for memory that was written before, and on systems
// other than Linux.
SEPCONV_API void prefer_huge_pages(const void* array, size_t bytes);

// The same for the array alone, and for what shares its first and last huge page. For engines that
// get each array from the C library: its memory grows and shrinks all the time, so that no mapping
// found stays one.
SEPCONV_API void prefer_huge_pages_here(const void* array, size_t bytes);

}  // namespace sepconv
