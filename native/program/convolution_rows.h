// Rows of a convolution's result computed from the rows of its image that they see: what steps of
// every number format need for `Call::run_rows`.
#pragma once
#include <algorithm>

#include "../geometry.h"
#include "step.h"

namespace sepconv::program {

// Whether every row of outputs sees a row of the image. One that sees padding alone would be
// computed from no row.
inline bool sees_rows(const Geometry& g) {
  return g.pt <= (g.kh - 1) * g.dh && (g.ho - 1) * g.sh - g.pt < g.h;
}

// The rows of the image that some rows of outputs see.
inline Rows rows_seen(const Geometry& g, Rows computed) {
  const int64_t first = computed.first * g.sh - g.pt;
  const int64_t last = (computed.last - 1) * g.sh - g.pt + (g.kh - 1) * g.dh + 1;
  return {std::max<int64_t>(first, 0), std::min(last, g.h)};
}

// The convolution that computes these rows alone.
inline Geometry geometry_of(const Geometry& whole, const RowsArguments& rows) {
  Geometry g = whole;
  g.n = 1;
  g.h = rows.read.count();
  g.ho = rows.computed.count();
  g.pt = rows.read.first - (rows.computed.first * whole.sh - whole.pt);
  return g;
}

// The pixels of the result before these rows.
inline int64_t pixels_before(const Geometry& whole, const RowsArguments& rows) {
  return (rows.image * whole.ho + rows.computed.first) * whole.wo;
}

}  // namespace sepconv::program
