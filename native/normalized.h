// Gradients of a convolution and the batch normalization after it, together.
#pragma once
#include "operation.h"
#include "threads.h"

namespace sepconv {

// The gradient of what is between the two is made for a few rows at a time, which the convolution's
// gradients then find in a cache. Apart from each other, the two steps would write it to memory and
// read it twice. Of x, gamma and beta the results are those of the two steps to the bit. float32
// and float64; they throw std::invalid_argument for another dtype or sizes that do not fit each
// other, and std::bad_alloc where there is no memory.
SEPCONV_API void normalized_backward(DType dtype, const Geometry& g, const BatchNorm& s,
                                     const NormalizedBackward& args, Runner& runner);
SEPCONV_API void normalized_backward(DType dtype, const Pointwise& p, const BatchNorm& s,
                                     const NormalizedBackward& args, Runner& runner);

}  // namespace sepconv
