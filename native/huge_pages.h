// Huge pages for large arrays that an engine has just been given by the system.
#pragma once
#include <cstddef>

#include "geometry.h"

namespace sepconv {

// Asks for huge pages where an array is that a kernel is about to write: for the whole mapping it
// is in, since an engine may have all arrays of a step in one that is new every time. Nothing where
// the array is small or its memory was written to before, and on systems other than Linux.
SEPCONV_API void prefer_huge_pages(const void* array, size_t bytes);

}  // namespace sepconv
