// The array operations of one instruction set for bfloat16: compiled once a level, with
// SEPCONV_ISA_NAMESPACE and SEPCONV_VECTOR_BYTES given by the build.
#include "array_table.h"
#include "binary.h"
#include "move.h"
#include "normalize.h"
#include "pool.h"
#include "reduce.h"
#include "resize.h"
#include "unary.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

template <class From, class To>
void cast_to(const CastStep& step, Runner& runner) {
  const From* x = static_cast<const From*>(step.x);
  To* const y = static_cast<To*>(step.y);
  for_ranges(runner, step.count, 1,
             [&](int64_t first, int64_t last) { convert_run(x + first, last - first, y + first); });
}

void cast(const CastStep& step, Runner& runner) {
  step.widens ? cast_to<BFloat16, float>(step, runner) : cast_to<float, BFloat16>(step, runner);
}

}  // namespace

void replace_arrays_bf16(ArrayTable& table) {
  using S = BFloat16;
  table = {.unary = &unary<S>,
           .binary = &binary<S>,
           .scale = &scale<S>,
           .pool = &pool_windows<S>,
           .reduce = &reduce<S>,
           .softmax = &softmax<S>,
           .layer_norm = &layer_norm<S>,
           .resize = &resize<S>,
           .copy = &copy<uint16_t>,
           .fill = &fill<S>,
           .cast = &cast};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
