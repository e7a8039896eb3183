// Depthwise convolution a channel at a time, vectorised over pixels: for channels_first, and for
// images with fewer channels than a vector has lanes.
//
// The rows of the input that a band of outputs needs are copied into scratch, padded, and split by
// the stride into phases: phase (a, b) holds the padded pixels (r*sh + a, q*sw + b). All phases
// have rows of the same `pitch`. Tap (i, j) then sees, for output (p, q), element
// (p + i*dh/sh, q + j*dw/sw) of one phase; with outputs laid out in rows of `pitch` too, a tap is a
// constant shift and the convolution of any stride and dilation is one over flat arrays. The
// pitch - wo columns computed for nothing at each row's end are dropped when copied out.
#pragma once
#include "../geometry.h"
#include "activation.h"
#include "half.h"
#include "parallel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// A channel of an image: element (row, column) is data[row * row_step + column * pixel_step].
template <class T>
struct Plane {
  T* data;
  int64_t row_step, pixel_step;
};

// to[i] = from[i * step], as it is or between a half type and float32. Rows of planes are short, so
// the last vector overlaps the one before it; finishing a row an element at a time would be slower.
template <class From, class To>
void gather_run(const From* from, int64_t step, int64_t count, To* to) {
  if constexpr (!kSame<From, To>) {
    if (step == 1) {
      convert_run(from, count, to);
      return;
    }
    constexpr int64_t kRun = 256;
    From run[kRun];
    for (int64_t i = 0; i < count; i += kRun) {
      const int64_t here = min_of(kRun, count - i);
      gather_run(from + i * step, step, here, run);
      convert_run(run, here, to + i);
    }
  } else if (step == 1) {
    if (count < kLanes<To>) {
      for (int64_t i = 0; i < count; ++i) to[i] = from[i];
      return;
    }
    for (int64_t i = 0; i + kLanes<To> < count; i += kLanes<To>) store(to + i, load(from + i));
    store(to + count - kLanes<To>, load(from + count - kLanes<To>));
  } else if (step == 2) {  // a constant, which compilers turn into shuffles
    for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i * step];
  }
}

// to[i * step] = from[i], likewise.
template <class From, class To>
void scatter_run(const From* from, int64_t count, int64_t step, To* to) {
  if (step == 1) {
    gather_run(from, int64_t{1}, count, to);
  } else if constexpr (!kSame<From, To>) {
    constexpr int64_t kRun = 256;
    To run[kRun];
    for (int64_t i = 0; i < count; i += kRun) {
      const int64_t here = min_of(kRun, count - i);
      convert_run(from + i, here, run);
      scatter_run(run, here, step, to + i * step);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) to[i * step] = from[i];
  }
}

struct PlanarTap {
  int64_t shift;  // within its phase
  int64_t index;  // i * kw + j
};

inline constexpr int kPlanarTile = 4;  // vectors of outputs computed together

// The sizes of what bands of at most `band_rows` rows of outputs need.
template <class T>
struct PlanarSizes {
  PlanarSizes(const Geometry& g, int64_t band_rows)
      : phases_h(min_of(g.sh, (g.kh - 1) * g.dh + 1)),
        phases_w(min_of(g.sw, (g.kw - 1) * g.dw + 1)),
        pitch(g.wo + (g.kw - 1) * g.dw / g.sw),
        extra_rows((g.kh - 1) * g.dh / g.sh),
        phase_elements(
            round_up((band_rows + extra_rows + 1) * pitch + kPlanarTile * kLanes<T>, kLanes<T>)),
        lead(round_up((extra_rows + 1) * pitch, kLanes<T>)) {}

  const int64_t phases_h, phases_w;  // phases that some tap sees
  const int64_t pitch;               // elements of a flat row
  const int64_t extra_rows;          // rows of a phase beyond the band's
  const int64_t phase_elements;      // with room for a tile that reads past its end
  const int64_t lead;                // zeros that planar_input_gradient reads before `flat`

  int64_t phases() const { return phases_h * phases_w; }
  int64_t all_phases() const { return phases() * phase_elements; }
};

// What the bands of one convolution share.
template <class T>
class Planar : public PlanarSizes<T> {
 public:
  using PlanarSizes<T>::phases_h;
  using PlanarSizes<T>::phases_w;
  using PlanarSizes<T>::pitch;

  Planar(const Geometry& geometry, int64_t band_rows)
      : PlanarSizes<T>(geometry, band_rows),
        g(geometry),
        taps_(g.kh * g.kw),
        starts_(phases_h * phases_w + 1) {
    int64_t count = 0;
    for (int64_t a = 0; a < phases_h; ++a)
      for (int64_t s = 0; s < phases_w; ++s) {
        starts_.get()[a * phases_w + s] = count;
        for (int64_t i = 0; i < g.kh; ++i) {
          if (i * g.dh % g.sh != a) continue;
          for (int64_t j = 0; j < g.kw; ++j) {
            if (j * g.dw % g.sw != s) continue;
            taps_.get()[count++] = {i * g.dh / g.sh * pitch + j * g.dw / g.sw, i * g.kw + j};
          }
        }
      }
    starts_.get()[phases_h * phases_w] = count;
  }

  const Geometry& g;

  const PlanarTap* taps() const { return taps_.get(); }
  int64_t first_tap(int64_t phase) const { return starts_.get()[phase]; }

 private:
  Workspace<PlanarTap> taps_;  // those of one phase stand together
  Workspace<int64_t> starts_;
};

// Calls f(element, h, w, count) for every run of pixels that a row of a phase and the image share:
// phase element `element` + t is image pixel (h, w + t * sw). The band begins at output row p0.
template <class T, class F>
void for_phase_runs(const Planar<T>& planar, int64_t p0, int64_t rows, F&& f) {
  const Geometry& g = planar.g;
  for (int64_t a = 0; a < planar.phases_h; ++a)
    for (int64_t s = 0; s < planar.phases_w; ++s) {
      const int64_t start = s - g.pl;  // the image column of the phase's column 0
      const int64_t first = start >= 0 ? 0 : ceil_div(-start, g.sw);
      const int64_t last = min_of(planar.pitch, ceil_div(g.w - start, g.sw));
      if (first >= last) continue;
      for (int64_t r = 0; r < rows + planar.extra_rows; ++r) {
        const int64_t h = (p0 + r) * g.sh + a - g.pt;
        if (h < 0 || h >= g.h) continue;
        f((a * planar.phases_w + s) * planar.phase_elements + r * planar.pitch + first, h,
          start + first * g.sw, last - first);
      }
    }
}

template <class T, class S>
void fill_phases(const Planar<T>& planar, int64_t p0, int64_t rows, const Plane<const S>& x,
                 T* phases) {
  fill_zero(phases, planar.all_phases());
  const int64_t step = x.pixel_step * planar.g.sw;
  for_phase_runs(planar, p0, rows, [&](int64_t element, int64_t h, int64_t w, int64_t count) {
    gather_run(x.data + h * x.row_step + w * x.pixel_step, step, count, phases + element);
  });
}

inline constexpr int kPlanarRows = 4;  // rows computed together

// Whether kPlanarRows rows can be computed together.
template <class T>
bool rows_together(const Planar<T>& planar, int64_t rows) {
  return planar.phases() == 1 && planar.g.dh == 1 && rows >= kPlanarRows;
}

// The sums of kPlanarRows rows of VECTORS vectors: an input vector, once loaded, serves all rows of
// outputs that see it. SIGN = 1: to[f] gets weight * from[f + shift]; -1: from[f - shift].
template <class T, int KH, int SIGN, int VECTORS>
[[gnu::always_inline]] inline void planar_tile(const Planar<T>& planar, const T* from,
                                               const T* weights, int64_t weight_step,
                                               Vec<T> (&acc)[kPlanarRows][VECTORS]) {
  constexpr int kVec = kLanes<T>;
  const int64_t kw = planar.g.kw, pitch = planar.pitch;
  for (int64_t j = 0; j < kw; ++j) {
    Vec<T> w[KH];
#pragma GCC unroll 8
    for (int i = 0; i < KH; ++i) w[i] = broadcast(weights[(i * kw + j) * weight_step]);
    const T* column = from + SIGN * j * planar.g.dw;
#pragma GCC unroll 16
    for (int r = 0; r < kPlanarRows + KH - 1; ++r) {
      // Input rows in order. Where SIGN is -1, those that the first outputs see begin KH - 1 rows
      // before them.
      const T* row = column + (SIGN == 1 ? r : r - (KH - 1)) * pitch;
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) {
        const Vec<T> in = load(row + v * kVec);
#pragma GCC unroll 4
        for (int p = 0; p < kPlanarRows; ++p) {
          const int i = SIGN == 1 ? r - p : p - (r - (KH - 1));
          if (i >= 0 && i < KH) acc[p][v] += in * w[i];
        }
      }
    }
  }
}

// Calls tile<VECTORS>(f) for tiles of kPlanarRows rows that cover the first `columns` of `rows`
// rows. Vectors may run on into the next row: a tap is the same shift everywhere, so what they
// store there is right.
template <class T, class F>
void for_row_tiles(const Planar<T>& planar, int64_t rows, int64_t columns, F&& tile) {
  constexpr int kVec = kLanes<T>;
  for (int64_t p0 = 0; p0 < rows; p0 += kPlanarRows) {
    const int64_t first = min_of(p0, rows - kPlanarRows) * planar.pitch;
    int64_t c = 0;
    for (; columns - c > kVec; c += 2 * kVec) tile.template operator()<2>(first + c);
    if (c < columns) tile.template operator()<1>(first + c);
  }
}

template <class T, int KH>
void planar_forward_rows(const Planar<T>& planar, int64_t rows, const T* phases, const T* weights,
                         int64_t weight_step, T bias, Activation activation, T* flat) {
  for_row_tiles(
      planar, rows, planar.g.wo, [&]<int VECTORS>(int64_t f) __attribute__((always_inline)) {
        Vec<T> acc[kPlanarRows][VECTORS];
#pragma GCC unroll 4
        for (int p = 0; p < kPlanarRows; ++p)
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) acc[p][v] = broadcast(bias);
        planar_tile<T, KH, 1, VECTORS>(planar, phases + f, weights, weight_step, acc);
#pragma GCC unroll 4
        for (int p = 0; p < kPlanarRows; ++p)
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v)
            store(flat + f + p * planar.pitch + v * kLanes<T>, activate<T>(acc[p][v], activation));
      });
}

// flat[f] = bias + sum over taps of weight * phases[f + shift]; weights are `weight_step` apart.
template <class T>
void planar_forward(const Planar<T>& planar, int64_t rows, const T* phases, const T* weights,
                    int64_t weight_step, T bias, Activation activation, T* flat) {
  constexpr int kVec = kLanes<T>;
  if (rows_together(planar, rows)) {
    const auto by_rows = [&](auto function) {
      function(planar, rows, phases, weights, weight_step, bias, activation, flat);
    };
    if (planar.g.kh == 3) return by_rows(planar_forward_rows<T, 3>);
    if (planar.g.kh == 5) return by_rows(planar_forward_rows<T, 5>);
    if (planar.g.kh == 7) return by_rows(planar_forward_rows<T, 7>);
  }
  for (int64_t f = 0; f < rows * planar.pitch; f += kPlanarTile * kVec) {
    Vec<T> acc[kPlanarTile];
#pragma GCC unroll 8
    for (int u = 0; u < kPlanarTile; ++u) acc[u] = broadcast(bias);
    for (int64_t phase = 0; phase < planar.phases(); ++phase) {
      const T* here = phases + phase * planar.phase_elements + f;
      for (int64_t tap = planar.first_tap(phase); tap < planar.first_tap(phase + 1); ++tap) {
        const T* from = here + planar.taps()[tap].shift;
        const T w = weights[planar.taps()[tap].index * weight_step];
#pragma GCC unroll 8
        for (int u = 0; u < kPlanarTile; ++u) acc[u] += w * load(from + u * kVec);
      }
    }
#pragma GCC unroll 8
    for (int u = 0; u < kPlanarTile; ++u)
      store(flat + f + u * kVec, activate<T>(acc[u], activation));
  }
}

// The channel of a tensor with `channels` of them, `h` x `w` pixels, in the layout of `g`.
template <class T>
Plane<T> plane_of(const Geometry& g, T* data, int64_t channels, int64_t h, int64_t w, int64_t n,
                  int64_t c) {
  if (g.channels_first) return {data + (n * channels + c) * h * w, w, 1};
  return {data + n * h * w * channels + c, w * channels, channels};
}

// Elements of scratch that each_forward_plane needs.
template <class T>
int64_t forward_scratch(const PlanarSizes<T>& sizes) {
  return sizes.all_phases() + sizes.phase_elements;
}

// Calls f(o, flat) for every output channel o in [o0, o1) of image n of `x`; `flat` is the band's
// outputs in rows of `pitch`. `bias` may be null.
template <class T, class S, class F>
void each_forward_plane(const Planar<T>& planar, const S* x, int64_t n, int64_t p0, int64_t rows,
                        int64_t o0, int64_t o1, const T* kernel, const T* bias,
                        Activation activation, T* phases, F&& f) {
  const Geometry& g = planar.g;
  T* flat = phases + planar.all_phases();
  for (int64_t o = o0; o < o1; ++o) {
    if (o == o0 || o % g.m == 0)
      fill_phases(planar, p0, rows, plane_of(g, x, g.c, g.h, g.w, n, o / g.m), phases);
    planar_forward(planar, rows, phases, kernel + o, g.c * g.m, bias == nullptr ? T(0) : bias[o],
                   early(activation), flat);
    if (is_late(activation)) activate_late(flat, rows, planar.pitch, planar.pitch, activation);
    f(o, flat);
  }
}

// The size of `flat` with its leading zeros, and of what planar_forward writes.
template <class T>
int64_t flat_elements(const PlanarSizes<T>& sizes) {
  return sizes.lead + sizes.phase_elements;
}

// Elements of scratch that a gradient needs: phases, and a plane of output gradients.
template <class T>
int64_t gradient_scratch(const PlanarSizes<T>& sizes) {
  return sizes.all_phases() + flat_elements(sizes);
}

// Puts a plane of output gradients into rows of `pitch` behind `lead` zeros, with zeros between and
// after the rows. Returns the place of output (p0, 0).
template <class T, class S>
T* fill_flat(const Planar<T>& planar, int64_t p0, int64_t rows, const Plane<const S>& dy,
             T* memory) {
  fill_zero(memory, flat_elements(planar));
  T* flat = memory + planar.lead;
  for (int64_t r = 0; r < rows; ++r)
    gather_run(dy.data + (p0 + r) * dy.row_step, dy.pixel_step, planar.g.wo,
               flat + r * planar.pitch);
  return flat;
}

// As planar_input_gradient, where phases are zero. Sums are stored, not added: vectors run on into
// the next row, whose sums would count twice.
template <class T, int KH>
void planar_input_gradient_rows(const Planar<T>& planar, int64_t rows, const T* flat,
                                const T* weights, int64_t weight_step, T* phases) {
  for_row_tiles(planar, rows + planar.extra_rows, planar.pitch,
                [&]<int VECTORS>(int64_t f) __attribute__((always_inline)) {
                  Vec<T> acc[kPlanarRows][VECTORS] = {};
                  planar_tile<T, KH, -1, VECTORS>(planar, flat + f, weights, weight_step, acc);
#pragma GCC unroll 4
                  for (int p = 0; p < kPlanarRows; ++p)
#pragma GCC unroll 2
                    for (int v = 0; v < VECTORS; ++v)
                      store(phases + f + p * planar.pitch + v * kLanes<T>, acc[p][v]);
                });
}

// Adds to `phases` the input gradient of a band, from its output gradients `flat` and one kernel.
template <class T>
void planar_input_gradient(const Planar<T>& planar, int64_t rows, const T* flat, const T* weights,
                           int64_t weight_step, T* phases) {
  constexpr int kVec = kLanes<T>;
  if (planar.g.m == 1 && rows_together(planar, rows)) {
    const auto by_rows = [&](auto function) {
      function(planar, rows, flat, weights, weight_step, phases);
    };
    if (planar.g.kh == 3) return by_rows(planar_input_gradient_rows<T, 3>);
    if (planar.g.kh == 5) return by_rows(planar_input_gradient_rows<T, 5>);
    if (planar.g.kh == 7) return by_rows(planar_input_gradient_rows<T, 7>);
  }
  const int64_t elements = (rows + planar.extra_rows) * planar.pitch;
  for (int64_t phase = 0; phase < planar.phases(); ++phase) {
    T* to = phases + phase * planar.phase_elements;
    for (int64_t f = 0; f < elements; f += kPlanarTile * kVec) {
      Vec<T> acc[kPlanarTile];
#pragma GCC unroll 8
      for (int u = 0; u < kPlanarTile; ++u) acc[u] = load(to + f + u * kVec);
      for (int64_t tap = planar.first_tap(phase); tap < planar.first_tap(phase + 1); ++tap) {
        const T* from = flat + f - planar.taps()[tap].shift;
        const T w = weights[planar.taps()[tap].index * weight_step];
#pragma GCC unroll 8
        for (int u = 0; u < kPlanarTile; ++u) acc[u] += w * load(from + u * kVec);
      }
#pragma GCC unroll 8
      for (int u = 0; u < kPlanarTile; ++u) store(to + f + u * kVec, acc[u]);
    }
  }
}

// dk[tap] += sum of flat[f] * phases[f + shift]; taps are `step` apart in dk.
template <class T>
void planar_kernel_gradient(const Planar<T>& planar, int64_t rows, const T* phases, const T* flat,
                            T* dk, int64_t step) {
  constexpr int kVec = kLanes<T>;
  constexpr int kTaps = 8;
  const int64_t elements = rows * planar.pitch;
  for (int64_t phase = 0; phase < planar.phases(); ++phase) {
    const T* here = phases + phase * planar.phase_elements;
    const int64_t last = planar.first_tap(phase + 1);
    for (int64_t tap = planar.first_tap(phase); tap < last; tap += kTaps) {
      const T* from[kTaps];
      for (int u = 0; u < kTaps; ++u)
        from[u] = here + planar.taps()[min_of(tap + u, last - 1)].shift;
      Vec<T> acc[kTaps];
#pragma GCC unroll 8
      for (int u = 0; u < kTaps; ++u) acc[u] = zero<T>();
      for (int64_t f = 0; f < elements; f += kVec) {
        const Vec<T> dy = load(flat + f);
#pragma GCC unroll 8
        for (int u = 0; u < kTaps; ++u) acc[u] += load(from[u] + f) * dy;
      }
      for (int u = 0; u < kTaps && tap + u < last; ++u)
        dk[planar.taps()[tap + u].index * step] += sum<T>(acc[u]);
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
