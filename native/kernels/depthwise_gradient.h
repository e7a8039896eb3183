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

template <class T>
void input_gradient_channelwise(const Geometry& g, const DepthwisePlan& plan, const T* dy,
                                const T* kernel, T* dx, Runner& runner) {
  const int64_t channels = g.c * g.m;
  FlippedKernel<T> flipped(g, kernel);
  const Cut& bands = plan.bands;
  const int64_t parts = plan.channel_parts;
  Workspace<PlannedPhase> phases(g.sh * g.sw);
  for (int64_t a = 0; a < g.sh; ++a)
    for (int64_t b = 0; b < g.sw; ++b) {
      const GradientPhase phase = gradient_phase(g, a, b);
      phases.get()[a * g.sw + b] = {phase, plan_phase<T>(g, phase, bands.most)};
    }
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* wide) {
    const int64_t part = task % parts, band = task / parts % bands.count;
    const int64_t n = task / parts / bands.count;
    const int64_t h0 = bands.first(band);
    const int64_t h1 = bands.first(band + 1);
    const Range c = channel_part<T>(channels, parts, part);
    T* to = g.m == 1 ? dx + (n * g.h + h0) * g.w * g.c : wide;
    for (int64_t a = 0; a < g.sh; ++a)
      for (int64_t b = 0; b < g.sw; ++b) {
        const auto& [phase, how] = phases.get()[a * g.sw + b];
        const Range p = axis_range(h0, h1, g.sh, a, g.pt);
        const Range q = phase.q;
        if (p.first == p.last || q.first == q.last) continue;
        const Box box{p.first, p.last, q.first, q.last, c.first, c.last};
        T* out = to + (p.first * g.sh + a - g.pt - h0) * g.w * channels +
                 (q.first * g.sw + b - g.pl) * channels + c.first;
        correlate<T>(how, phase.correlation, dy + n * g.ho * g.wo * channels,
                     flipped.phase(a * g.sw + b), nullptr, Activation::none, box, out,
                     g.sh * g.w * channels, g.sw * channels, wide + plan.band.expanded);
      }
    if (g.m != 1) add_neighbours(wide, (h1 - h0) * g.w * g.c, g.m, dx + (n * g.h + h0) * g.w * g.c);
  });
}

template <class T>
void input_gradient_planar(const Geometry& g, const DepthwisePlan& plan, const T* dy,
                           const T* kernel, T* dx, Runner& runner) {
  const int64_t channels = g.c * g.m;
  // Bands of input rows; each takes the rows of outputs that see it.
  const Cut& bands = plan.bands;
  const Planar<T> planar(g, plan.band.rows);
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* phases) {
    const int64_t band = task % bands.count, c = task / bands.count % g.c;
    const int64_t n = task / bands.count / g.c;
    const int64_t h0 = bands.first(band);
    const int64_t h1 = bands.first(band + 1);
    const int64_t p0 = max_of(0, ceil_div(h0 + g.pt - (g.kh - 1) * g.dh, g.sh));
    const int64_t p1 = min_of(g.ho, floor_div(h1 - 1 + g.pt, g.sh) + 1);
    const Plane<T> out = plane_of(g, dx, g.c, g.h, g.w, n, c);
    if (out.pixel_step == 1)
      fill_zero(out.data + h0 * g.w, (h1 - h0) * g.w);
    else
      for (int64_t h = h0; h < h1; ++h)
        for (int64_t w = 0; w < g.w; ++w) out.data[h * out.row_step + w * out.pixel_step] = 0;
    if (p1 <= p0) return;
    fill_zero(phases, planar.all_phases());
    for (int64_t m = 0; m < g.m; ++m) {
      const int64_t o = c * g.m + m;
      const Plane<const T> in = plane_of(g, dy, channels, g.ho, g.wo, n, o);
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

template <class T>
void input_gradient_stride2(const Geometry& g, const DepthwisePlan& plan, const T* dy,
                            const T* kernel, T* dx, Runner& runner) {
  const Cut& bands = plan.bands;
  const int64_t parts = plan.channel_parts;
  parallel<T>(runner, plan.tasks, 0, [&](int64_t task, T*) {
    const int64_t band = task / parts % bands.count, n = task / parts / bands.count;
    const Range c = channel_part<T>(g.c, parts, task % parts);
    stride2_input_gradient(g, dy + n * g.ho * g.wo * g.c, kernel, bands.first(band),
                           bands.first(band + 1), c.first, c.last, dx + n * g.h * g.w * g.c);
  });
}

template <class T>
void input_gradient_flat(const Geometry& g, const DepthwisePlan& plan, const T* dy, const T* kernel,
                         T* dx, Runner& runner) {
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
        const int64_t n = task / bands.count, band = task % bands.count;
        const int64_t h0 = bands.first(band);
        FlatRows<T>(sizes, false, weights)
            .compute(dy + n * g.ho * g.wo * channels, h0, bands.first(band + 1), 0, g.w,
                     Activation::none, dx + (n * g.h + h0) * g.w * g.c, g.w * g.c, scratch);
      });
}

template <class T>
void depthwise_input_gradient(const Geometry& g, const T* dy, const T* kernel, T* dx,
                              Runner& runner) {
  const DepthwisePlan plan = plan_input_gradient<T>(g, runner.concurrency());
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

template <class T>
void kernel_gradient_channelwise(const Geometry& g, const DepthwisePlan& plan, const T* x,
                                 const T* dy, T* dk, Runner& runner) {
  const int64_t channels = g.c * g.m, taps = g.kh * g.kw, size = taps * channels;
  const Cut& bands = plan.bands;
  const int64_t units = g.n * bands.count, groups = plan.groups, parts = plan.channel_parts;
  Workspace<T> partials(groups * size);
  fill_zero(partials.get(), groups * size);
  const int64_t sums = taps * kLanes<T>;
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* scratch) {
    const int64_t part = task % parts, group = task / parts;
    const Range c = channel_part<T>(channels, parts, part);
    const int64_t last = part_start(units, groups, group + 1);
    for (int64_t unit = part_start(units, groups, group); unit < last; ++unit) {
      const int64_t n = unit / bands.count, band = unit % bands.count;
      const int64_t p0 = bands.first(band);
      const int64_t p1 = bands.first(band + 1);
      const Expanded<T> wide = expand(g, x + n * g.h * g.w * g.c, p0, p1, scratch + sums);
      add_kernel_gradient(plan.band.correlation, wide.correlation, wide.image,
                          dy + (n * g.ho + p0) * g.wo * channels, wide.p0, wide.p0 + p1 - p0,
                          c.first, c.last, partials.get() + group * size,
                          reinterpret_cast<Vec<T>*>(scratch), scratch + sums + plan.band.expanded);
    }
  });
  add_partials(partials.get(), groups, size, dk, runner);
}

template <class T>
void kernel_gradient_flat(const Geometry& g, const DepthwisePlan& plan, const T* x, const T* dy,
                          T* dk, Runner& runner) {
  const FlatSizes sizes = flat_sizes<T>(g);
  const int64_t channels = g.c * g.m, size = g.kh * g.kw * channels;
  const Cut& bands = plan.bands;
  const int64_t units = g.n * bands.count, groups = plan.groups;
  Workspace<T> partials(groups * size);
  fill_zero(partials.get(), groups * size);
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t group, T* scratch) {
    const int64_t last = part_start(units, groups, group + 1);
    for (int64_t unit = part_start(units, groups, group); unit < last; ++unit) {
      const int64_t n = unit / bands.count, band = unit % bands.count;
      const int64_t p0 = bands.first(band);
      add_flat_gradient(sizes, x + n * g.h * g.w * g.c, dy + (n * g.ho + p0) * g.wo * channels, p0,
                        bands.first(band + 1), partials.get() + group * size, scratch);
    }
  });
  add_partials(partials.get(), groups, size, dk, runner);
}

template <class T>
void kernel_gradient_planar(const Geometry& g, const DepthwisePlan& plan, const T* x, const T* dy,
                            T* dk, Runner& runner) {
  const int64_t channels = g.c * g.m, taps = g.kh * g.kw, size = taps * channels;
  const Cut& bands = plan.bands;
  const Planar<T> planar(g, plan.band.rows);
  const int64_t units = g.n * bands.count, groups = plan.groups;
  Workspace<T> partials(groups * size);
  fill_zero(partials.get(), groups * size);
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* phases) {
    const int64_t c = task % g.c, group = task / g.c;
    T* sums = partials.get() + group * size;
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
  add_partials(partials.get(), groups, size, dk, runner);
}

template <class T>
void depthwise_kernel_gradient(const Geometry& g, const T* x, const T* dy, T* dk, Runner& runner) {
  const DepthwisePlan plan = plan_kernel_gradient<T>(g, runner.concurrency());
  if (plan.band.kernel == DepthwiseKernel::flat)
    kernel_gradient_flat(g, plan, x, dy, dk, runner);
  else if (plan.band.kernel == DepthwiseKernel::planar)
    kernel_gradient_planar(g, plan, x, dy, dk, runner);
  else
    kernel_gradient_channelwise(g, plan, x, dy, dk, runner);
  mend_kernel_gradient(g, x, dy, dk, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
