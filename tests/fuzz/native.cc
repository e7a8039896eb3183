// A fuzzer (libFuzzer) of the native entry points: bytes become a geometry and a call on guarded
// buffers, whose results are held against plain loops. See `make fuzz`.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "../native/run.h"
#include "../native/runners.h"

namespace {

using test::Problem;

// Numbers of any size for resolve(): it refuses them or finds an output.
void resolve_anything(const uint8_t* data, size_t size) {
  test::Bytes bytes(data, size);
  int64_t values[18];
  for (int64_t& v : values) {
    const int width = static_cast<int>(bytes.raw(1) % 9);
    v = static_cast<int64_t>(bytes.raw(width)) - (width == 2 ? 4 : 0);
  }
  sepconv::Spec spec;
  std::memcpy(&spec, values, sizeof spec);
  spec.channels_first &= 1;
  spec.same &= 1;
  if (spec.same != 0) spec.pad_top = spec.pad_bottom = spec.pad_left = spec.pad_right = 0;
  int64_t* x = values + sepconv::kSpecSize;
  int64_t* kernel = x + 4;
  if (bytes.flag()) kernel[2] = x[spec.channels_first ? 1 : 3];
  try {
    const sepconv::Geometry g = sepconv::resolve(spec, x, kernel);
    if (g.ho < 1 || g.wo < 1 || g.pt < 0 || g.pl < 0) std::abort();
    int64_t elements = 1;
    for (int64_t s : {g.n, g.ho, g.wo, g.c, g.m})
      if (__builtin_mul_overflow(elements, s, &elements)) std::abort();
  } catch (const std::invalid_argument&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return -1;
  if (data[0] == 0) {
    resolve_anything(data + 1, size - 1);
    return 0;
  }
  Problem p;
  try {
    p = test::read_problem(data + 1, size - 1);
  } catch (const std::invalid_argument&) {
    return 0;
  }
  static test::Buffers buffers;
  static test::ReverseRunner reverse;
  sepconv::set_num_threads(1 + data[0] % 3);
  sepconv::Runner& runner = data[0] % 4 == 0 ? reverse : sepconv::pool();
  buffers.turn();
  const std::string text = test::verdict(p, runner, buffers);
  if (!text.empty()) {
    std::fprintf(stderr, "wrong: %s\n", text.c_str());
    std::abort();
  }
  return 0;
}
