// The depthwise step's input and kernel gradients over whole tensors.
#pragma once
#include "depthwise.h"
#include "kernel_gradient.h"
#include "stride2_gradient.h"
#include "sums.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// --- input gradient ----------------------------------------------------------------------------

// The flipped kernel, sorted by phase: the taps of phase (a, b) are consecutive.
template <class T>
class FlippedKernel {
 public:
  FlippedKernel(const Geometry& g, const T* kernel)
      : weights_(g.kh * g.kw * g.c * g.m), starts_(g.sh * g.sw) {
    const int64_t channels = g.c * g.m;
    T* to = weights_.get();
    for (int64_t a = 0; a < g.sh; ++a)
      for (int64_t b = 0; b < g.sw; ++b) {
        starts_.get()[a * g.sw + b] = to - weights_.get();
        const AxisPhase rows = axis_phase(g.kh, g.sh, g.dh, a);
        const AxisPhase columns = axis_phase(g.kw, g.sw, g.dw, b);
        for (int64_t i = rows.taps - 1; i >= 0; --i)
          for (int64_t j = columns.taps - 1; j >= 0; --j) {
            const T* from =
                kernel +
                ((rows.first + i * rows.step) * g.kw + columns.first + j * columns.step) * channels;
            for (int64_t c = 0; c < channels; ++c) to[c] = from[c];
            to += channels;
          }
      }
  }
  const T* phase(int64_t index) { return weights_.get() + starts_.get()[index]; }

 private:
  Workspace<T> weights_;
  Workspace<int64_t> starts_;
};

// to[i] = the sum of from[i * m ... i * m + m - 1].
template <class T>
void add_neighbours(const T* from, int64_t count, int64_t m, T* to) {
  if (m == 2) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i] + from[2 * i + 1];
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    T total = from[i * m];
    for (int64_t r = 1; r < m; ++r) total += from[i * m + r];
    to[i] = total;
  }
}

// A phase, and how it is computed.
struct PlannedPhase {
  GradientPhase phase;
  CorrelationPlan plan;
};

template <class S>
class PlannedPhases {
 public:
  PlannedPhases(const Geometry& g, const DepthwisePlan& plan) : phases_(g.sh * g.sw) {
    for (int64_t a = 0; a < g.sh; ++a)
      for (int64_t b = 0; b < g.sw; ++b) {
        const GradientPhase phase = gradient_phase(g, a, b);
        phases_.get()[a * g.sw + b] = {
            phase, plan_phase<S>(g, phase, plan.bands.most, plan.band.widened.together)};
      }
  }
  // Computes rows [h0, h1) and columns [w0, w1) of channels [c0, c1), from dy or a part of it as
  // `seen(correlation)` says of a phase's, whose channel 0 is channel `weights` of the kernel.
  // `out` is where the first one of (h0, w0) goes, in rows of those columns, `pixel` elements each.
  // Tensors are of A: of S, of which a half type needs small kernels, or of T.
  template <class T, class A, class F>
  void correlate_all(const Geometry& g, FlippedKernel<T>& flipped, int64_t weights, const A* dy,
                     F&& seen, int64_t h0, int64_t h1, int64_t w0, int64_t w1, int64_t c0,
                     int64_t c1, A* out, int64_t pixel, T* scratch) const {
    for (int64_t a = 0; a < g.sh; ++a)
      for (int64_t b = 0; b < g.sw; ++b) {
        const auto& [phase, how] = phases_.get()[a * g.sw + b];
        const Range p = axis_range(h0, h1, g.sh, a, g.pt), q = axis_range(w0, w1, g.sw, b, g.pl);
        if (p.first == p.last || q.first == q.last) continue;
        const int64_t row = p.first * g.sh + a - g.pt - h0;
        const int64_t column = q.first * g.sw + b - g.pl - w0;
        const T* const taps = flipped.phase(a * g.sw + b) + weights;
        const Box box{p.first, p.last, q.first, q.last, c0, c1};
        A* const to = out + (row * (w1 - w0) + column) * pixel;
        const int64_t to_row = g.sh * (w1 - w0) * pixel, to_pixel = g.sw * pixel;
        if constexpr (kIsHalf<A>)
          correlate_small(seen(phase.correlation), dy, taps, nullptr, Activation::none, box, to,
                          to_row, to_pixel,
                          how.strip == 0 ? nullptr : reinterpret_cast<A*>(scratch));
        else
          correlate<T>(how, seen(phase.correlation), dy, taps, nullptr, Activation::none, box, to,
                       to_row, to_pixel, scratch);
      }
  }

 private:
  Workspace<PlannedPhase> phases_;
};

template <class S>
void input_gradient_channelwise(const Geometry& g, const DepthwisePlan& plan, const S* dy,
                                const Real<S>* kernel, S* dx, Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m, image = g.ho * g.wo * channels;
  FlippedKernel<T> flipped(g, kernel);
  const PlannedPhases<S> phases(g, plan);
  const Cut& bands = plan.bands;
  const int64_t parts = plan.channel_parts;
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* scratch) {
    const int64_t part = task % parts, band = task / parts % bands.count;
    const int64_t n = task / parts / bands.count;
    const int64_t h0 = bands.first(band);
    const int64_t h1 = bands.first(band + 1);
    const Range c = channel_part<T>(channels, parts, part);
    S* const out = dx + (n * g.h + h0) * g.w * g.c;
    // Where m > 1, of a half type the sums of neighbours, otherwise what is to be summed.
    T* const expanded = scratch;
    T* const window = expanded + plan.band.expanded;
    T* const strip = window + plan.band.widened.elements();
    const auto all = [](const Correlation& correlation) { return correlation; };
    if constexpr (kIsHalf<S>) {
      if (plan.band.widened.together == 0) {
        phases.correlate_all(g, flipped, 0, dy + n * image, all, h0, h1, 0, g.w, c.first, c.last,
                             out + c.first, channels, strip);
        return;
      }
      T* const tile = window + plan.band.widened.window;
      const Range p = output_rows(g, h0, h1);
      each_widened_part<T>(
          plan.band.widened, g.w, c.first, c.last, [&](Range w, int64_t c0, int64_t count) {
            const Range q = output_columns(g, w.first, w.last);
            const Window seen{p.first, q.first, p.last - p.first, q.last - q.first};
            widen_window(dy + n * image, g.wo, channels, int64_t{1}, seen, c0, count, window);
            const auto local = [&](Correlation correlation) {
              correlation.in_h = seen.rows;
              correlation.in_w = seen.columns;
              correlation.pt += seen.row;
              correlation.pl += seen.column;
              correlation.channels = widened_pitch<T>(count);
              return correlation;
            };
            const int64_t columns = w.last - w.first;
            phases.correlate_all(g, flipped, c0, window, local, h0, h1, w.first, w.last, 0, count,
                                 tile, count, strip);
            if (g.m != 1) add_neighbours(tile, (h1 - h0) * columns * g.c, g.m, expanded);
            put_tile<S>(g.m == 1 ? tile : expanded, h1 - h0, columns, count / g.m, Activation::none,
                        out + w.first * g.c + c0 / g.m, g.w * g.c, g.c);
          });
    } else {
      T* const to = g.m == 1 ? out : expanded;
      phases.correlate_all(g, flipped, 0, dy + n * image, all, h0, h1, 0, g.w, c.first, c.last,
                           to + c.first, channels, strip);
      if (g.m != 1) add_neighbours(to, (h1 - h0) * g.w * g.c, g.m, out);
    }
  });
}

template <class S>
void input_gradient_planar(const Geometry& g, const DepthwisePlan& plan, const S* dy,
                           const Real<S>* kernel, S* dx, Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m;
  // Bands of input rows; each takes the rows of outputs that see it.
  const Cut& bands = plan.bands;
  const Planar<T> planar(g, plan.band.rows);
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* phases) {
    const int64_t band = task % bands.count, c = task / bands.count % g.c;
    const int64_t n = task / bands.count / g.c;
    const int64_t h0 = bands.first(band);
    const int64_t h1 = bands.first(band + 1);
    const auto [p0, p1] = output_rows(g, h0, h1);
    const Plane<S> out = plane_of(g, dx, g.c, g.h, g.w, n, c);
    if (out.pixel_step == 1)
      fill_zero(out.data + h0 * g.w, (h1 - h0) * g.w);
    else
      for (int64_t h = h0; h < h1; ++h)
        for (int64_t w = 0; w < g.w; ++w) out.data[h * out.row_step + w * out.pixel_step] = S{};
    if (p1 <= p0) return;
    fill_zero(phases, planar.all_phases());
    for (int64_t m = 0; m < g.m; ++m) {
      const int64_t o = c * g.m + m;
      const Plane<const S> in = plane_of(g, dy, channels, g.ho, g.wo, n, o);
      const T* flat = fill_flat(planar, p0, p1 - p0, in, phases + planar.all_phases());
      planar_input_gradient(planar, p1 - p0, flat, kernel + o, channels, phases);
    }
    for_phase_runs(planar, p0, p1 - p0, [&](int64_t element, int64_t h, int64_t w, int64_t count) {
      if (h < h0 || h >= h1) return;
      scatter_run(phases + element, count, g.sw * out.pixel_step,
                  out.data + h * out.row_step + w * out.pixel_step);
    });
  });
}

template <class S>
void input_gradient_stride2(const Geometry& g, const DepthwisePlan& plan, const S* dy,
                            const Real<S>* kernel, S* dx, Runner& runner) {
  using T = Real<S>;
  const Cut& bands = plan.bands;
  const int64_t parts = plan.channel_parts;
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T*) {
    const int64_t band = task / parts % bands.count, n = task / parts / bands.count;
    const Range c = channel_part<T>(g.c, parts, task % parts);
    stride2_input_gradient(g, dy + n * g.ho * g.wo * g.c + c.first, kernel + c.first,
                           bands.first(band), bands.first(band + 1), c.last - c.first,
                           dx + n * g.h * g.w * g.c + c.first);
  });
}

template <class S>
void input_gradient_flat(const Geometry& g, const DepthwisePlan& plan, const S* dy,
                         const Real<S>* kernel, S* dx, Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m;
  const FlatSizes sizes = gradient_flat_sizes(g);
  const auto weight = [&](int64_t i, int64_t j, int64_t c, int64_t m) {
    return kernel[((g.kh - 1 - i) * g.kw + g.kw - 1 - j) * channels + c * g.m + m];
  };
  const Cut& bands = plan.bands;
  parallel_keeping<T>(
      runner, plan.tasks, plan.scratch, plan.kept, [&](int64_t task, T* scratch, Kept* kept) {
        const T* weights =
            filled_once<T>(kept, [&](T* to) { FlatRows<T>::spread(sizes, nullptr, weight, to); });
        const int64_t n = task / bands.count, band = task % bands.count, row = g.w * g.c;
        const int64_t h0 = bands.first(band), h1 = bands.first(band + 1);
        const S* const image = dy + n * g.ho * g.wo * channels;
        S* const out = dx + (n * g.h + h0) * row;
        const FlatRows<T> rows(sizes, false, weights);
        if constexpr (kIsHalf<S>) {
          T* const tile = scratch + plan.band.widened.window;
          rows.compute(image, h0, h1, 0, g.w, Activation::none, tile, row, scratch);
          put_run<S>(tile, (h1 - h0) * row, out);
        } else {
          rows.compute(image, h0, h1, 0, g.w, Activation::none, out, row, scratch);
        }
      });
}

template <class S>
void depthwise_input_gradient(const Geometry& g, const S* dy, const Real<S>* kernel, S* dx,
                              Runner& runner) {
  const DepthwisePlan plan = plan_input_gradient<S>(g, runner.concurrency());
  if (!all_finite(kernel, g.kh * g.kw * g.c * g.m))
    exact_input_gradient(g, dy, kernel, dx, runner);
  else if (plan.band.kernel == DepthwiseKernel::flat)
    input_gradient_flat(g, plan, dy, kernel, dx, runner);
  else if (plan.band.kernel == DepthwiseKernel::planar)
    input_gradient_planar(g, plan, dy, kernel, dx, runner);
  else if (plan.band.kernel == DepthwiseKernel::stride2)
    input_gradient_stride2(g, plan, dy, kernel, dx, runner);
  else
    input_gradient_channelwise(g, plan, dy, kernel, dx, runner);
}

// --- kernel gradient ---------------------------------------------------------------------------

template <class S>
void kernel_gradient_channelwise(const Geometry& g, const DepthwisePlan& plan, const S* x,
                                 const S* dy, Real<S>* dk, Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m, taps = g.kh * g.kw, size = taps * channels;
  const Cut& bands = plan.bands;
  const int64_t units = g.n * bands.count, groups = plan.groups, parts = plan.channel_parts;
  const GroupSums<T> partials(groups, size, dk);
  const int64_t sums = taps * kLanes<T>;
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* scratch) {
    const int64_t part = task % parts, group = task / parts;
    const Range c = channel_part<T>(channels, parts, part);
    T* const dk_here = partials.of(group);
    for (int64_t tap = 0; tap < taps; ++tap)
      fill_zero(dk_here + tap * channels + c.first, c.last - c.first);
    const int64_t last = part_start(units, groups, group + 1);
    for (int64_t unit = part_start(units, groups, group); unit < last; ++unit) {
      const int64_t n = unit / bands.count, band = unit % bands.count;
      const int64_t p0 = bands.first(band);
      const int64_t p1 = bands.first(band + 1);
      const S* const image = x + n * g.h * g.w * g.c;
      Vec<T>* const of_taps = reinterpret_cast<Vec<T>*>(scratch);
      T* const window = scratch + sums;
      if constexpr (kIsHalf<S>) {
        const Correlation whole = forward_correlation(g);
        if (plan.band.widened.together == 0) {
          add_small_gradient(
              whole, image, dy + (n * g.ho + p0) * g.wo * channels, p0, p1, c.first, c.last,
              dk_here, plan.band.correlation.strip == 0 ? nullptr : reinterpret_cast<S*>(window));
          continue;
        }
        each_widened_part<T>(
            plan.band.widened, g.wo, c.first, c.last, [&](Range q, int64_t c0, int64_t count) {
              const int64_t columns = q.last - q.first;
              const Window seen = inside_image(whole, window_of(whole, p0, p1, q.first, q.last));
              T* const outputs = window + seen.rows * seen.columns * widened_pitch<T>(count);
              widen_window(image, g.w, g.c, g.m, seen, c0, count, window);
              widen_window(dy + n * g.ho * g.wo * channels, g.wo, channels, int64_t{1},
                           Window{p0, q.first, p1 - p0, columns}, c0, count, outputs);
              add_kernel_gradient<T>(plan.band.correlation,
                                     widened_correlation(whole, seen, p0, q.first, columns, count),
                                     window, outputs, 0, p1 - p0, 0, count, dk_here + c0, of_taps,
                                     window + plan.band.widened.elements());
            });
      } else {
        const Expanded<T> wide = expand(g, image, p0, p1, window);
        add_kernel_gradient(plan.band.correlation, wide.correlation, wide.image,
                            dy + (n * g.ho + p0) * g.wo * channels, wide.p0, wide.p0 + p1 - p0,
                            c.first, c.last, dk_here, of_taps, window + plan.band.expanded);
      }
    }
  });
  partials.add_up(runner);
}

template <class S>
void kernel_gradient_flat(const Geometry& g, const DepthwisePlan& plan, const S* x, const S* dy,
                          Real<S>* dk, Runner& runner) {
  using T = Real<S>;
  const FlatSizes sizes = flat_sizes<T>(g);
  const int64_t channels = g.c * g.m, size = g.kh * g.kw * channels;
  const Cut& bands = plan.bands;
  const int64_t units = g.n * bands.count, groups = plan.groups;
  const GroupSums<T> partials(groups, size, dk);
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t group, T* scratch) {
    T* const sums = partials.of(group);
    fill_zero(sums, size);
    const int64_t last = part_start(units, groups, group + 1);
    for (int64_t unit = part_start(units, groups, group); unit < last; ++unit) {
      const int64_t n = unit / bands.count, band = unit % bands.count;
      const int64_t p0 = bands.first(band);
      add_flat_gradient(sizes, x + n * g.h * g.w * g.c, dy + (n * g.ho + p0) * g.wo * channels, p0,
                        bands.first(band + 1), sums, scratch);
    }
  });
  partials.add_up(runner);
}

template <class S>
void kernel_gradient_planar(const Geometry& g, const DepthwisePlan& plan, const S* x, const S* dy,
                            Real<S>* dk, Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m, taps = g.kh * g.kw, size = taps * channels;
  const Cut& bands = plan.bands;
  const Planar<T> planar(g, plan.band.rows);
  const int64_t units = g.n * bands.count, groups = plan.groups;
  const GroupSums<T> partials(groups, size, dk);
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* phases) {
    const int64_t c = task % g.c, group = task / g.c;
    T* const sums = partials.of(group);
    for (int64_t tap = 0; tap < taps; ++tap) fill_zero(sums + tap * channels + c * g.m, g.m);
    const int64_t last = part_start(units, groups, group + 1);
    for (int64_t unit = part_start(units, groups, group); unit < last; ++unit) {
      const int64_t n = unit / bands.count, band = unit % bands.count;
      const int64_t p0 = bands.first(band);
      const int64_t rows = bands.first(band + 1) - p0;
      fill_phases(planar, p0, rows, plane_of(g, x, g.c, g.h, g.w, n, c), phases);
      for (int64_t m = 0; m < g.m; ++m) {
        const int64_t o = c * g.m + m;
        const T* flat = fill_flat(planar, p0, rows, plane_of(g, dy, channels, g.ho, g.wo, n, o),
                                  phases + planar.all_phases());
        planar_kernel_gradient(planar, rows, phases, flat, sums + o, channels);
      }
    }
  });
  partials.add_up(runner);
}

template <class S>
void depthwise_kernel_gradient(const Geometry& g, const S* x, const S* dy, Real<S>* dk,
                               Runner& runner) {
  const DepthwisePlan plan = plan_kernel_gradient<S>(g, runner.concurrency());
  if (plan.band.kernel == DepthwiseKernel::flat)
    kernel_gradient_flat(g, plan, x, dy, dk, runner);
  else if (plan.band.kernel == DepthwiseKernel::planar)
    kernel_gradient_planar(g, plan, x, dy, dk, runner);
  else
    kernel_gradient_channelwise(g, plan, x, dy, dk, runner);
  mend_kernel_gradient(g, x, dy, dk, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
