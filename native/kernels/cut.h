// Cuts a range into even parts of whole units: rows into bands, pixels into tiles, outputs into
// parts of filters.
#pragma once
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

struct Cut {
  int64_t total, unit;
  int64_t most;   // in the largest part
  int64_t count;  // of parts
  // The first item of part `index`, and the end of the part before it.
  int64_t first(int64_t index) const {
    return min_of(part_start(ceil_div(total, unit), count, index) * unit, total);
  }
};

// `count` parts, of whole units but for the last.
inline Cut cut_into(int64_t total, int64_t count, int64_t unit = 1) {
  return {total, unit, ceil_div(ceil_div(total, unit), max_of(1, count)) * unit, count};
}

// Bands of about `wanted` rows of each of `images` images; their heights differ by one unit at
// most.
inline Cut cut_bands(int64_t total, int64_t wanted, int64_t images = 1, int64_t unit = 1) {
  const int64_t units = ceil_div(total, unit);
  int64_t count = ceil_div(units, min_of(max_of(1, wanted / unit), units));
  if (images % 4 != 0) count = shareable(count, units);
  return cut_into(total, count, unit);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
