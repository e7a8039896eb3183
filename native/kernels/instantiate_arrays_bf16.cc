// The array operations of one instruction set for bfloat16: compiled once a level, with
// SEPCONV_ISA_NAMESPACE and SEPCONV_VECTOR_BYTES given by the build.
#include "array_table.h"
#include "array_tasks.h"
#include "half.h"
#include "move.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {
namespace {

void fill_halves(const FillStep& step, Runner& runner) {
  BFloat16* const y = static_cast<BFloat16*>(step.y);
  const BFloat16 value = rounded_to<BFloat16>(static_cast<float>(step.value));
  for_ranges(runner, step.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) y[i] = value;
  });
}

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
  table = {.copy = &copy<uint16_t>, .fill = &fill_halves, .cast = &cast};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
