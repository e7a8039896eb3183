// The input gradient of a depthwise step as correlations of dy at stride 1, a phase of the strides
// each.
#pragma once
#include "../geometry.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

inline int64_t greatest_common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t r = a % b;
    a = b;
    b = r;
  }
  return a;
}

// Along one axis, the input positions x with (x + pad) % stride == residue are a correlation of dy
// at stride 1 with those taps i for which i * dilation % stride == residue, flipped.
struct AxisPhase {
  int64_t taps;      // how many
  int64_t first;     // the first such i
  int64_t step;      // from one to the next
  int64_t dilation;  // of dy
  int64_t pad;       // of dy
};

inline AxisPhase axis_phase(int64_t kernel, int64_t stride, int64_t dilation, int64_t residue) {
  const int64_t common = greatest_common_divisor(stride, dilation);
  AxisPhase phase{0, 0, stride / common, dilation / common, 0};
  while (phase.first < kernel && phase.first * dilation % stride != residue) {
    if (++phase.first > phase.step) return phase;  // residues repeat after `step` taps
  }
  if (phase.first >= kernel) return phase;
  phase.taps = (kernel - 1 - phase.first) / phase.step + 1;
  phase.pad = (phase.first + (phase.taps - 1) * phase.step) * dilation / stride;
  return phase;
}

// The positions of a residue as r * stride + residue - pad, for r in [first, last), within
// [from, to).
inline Range axis_range(int64_t from, int64_t to, int64_t stride, int64_t residue, int64_t pad) {
  const int64_t first = ceil_div(from + pad - residue, stride);
  return {first, max_of(first, ceil_div(to + pad - residue, stride))};
}

// Phase (a, b) of the input gradient as a correlation of dy, whose columns are `q`.
struct GradientPhase {
  Correlation correlation;
  Range q;
};

inline GradientPhase gradient_phase(const Geometry& g, int64_t a, int64_t b) {
  const AxisPhase rows = axis_phase(g.kh, g.sh, g.dh, a);
  const AxisPhase columns = axis_phase(g.kw, g.sw, g.dw, b);
  const Range q = axis_range(0, g.w, g.sw, b, g.pl);
  // Where there are no taps, zero rows of one tap make the correlation write zeros.
  const bool none = rows.taps == 0 || columns.taps == 0;
  return {{g.ho, g.wo, g.c * g.m, none ? 0 : rows.taps, none ? 1 : columns.taps, 1, 1,
           rows.dilation, columns.dilation, rows.pad, columns.pad, q.last, g.c * g.m},
          q};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
