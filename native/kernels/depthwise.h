// The depthwise step over whole tensors, as plan_depthwise.h has planned it.
#pragma once
#include "batch_parts.h"
#include "correlate.h"
#include "exact.h"
#include "flat_rows.h"
#include "plan_depthwise.h"
#include "planar.h"
#include "turned.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// The input rows [first, last) that output rows [p0, p1) see.
inline Range input_rows(const Geometry& g, int64_t p0, int64_t p1) {
  const int64_t first = min_of(max_of(0, p0 * g.sh - g.pt), g.h);
  const int64_t last = min_of(g.h, (p1 - 1) * g.sh + (g.kh - 1) * g.dh + 1 - g.pt);
  return {first, max_of(first, last)};
}

// A band of the input with c * m channels, for the channelwise kernels: the image itself, or where
// m > 1 a copy of its rows in scratch with every channel repeated m times.
template <class T>
struct Expanded {
  Correlation correlation;
  const T* image;
  int64_t p0;  // the band's first output row in terms of `correlation`
};

template <class T>
Expanded<T> expand(const Geometry& g, const T* image, int64_t p0, int64_t p1, T* scratch) {
  Correlation correlation = forward_correlation(g);
  if (g.m == 1) return {correlation, image, p0};
  const Range rows = input_rows(g, p0, p1);
  repeat_each(image + rows.first * g.w * g.c, (rows.last - rows.first) * g.w * g.c, g.m, scratch);
  correlation.in_h = rows.last - rows.first;
  correlation.pt = g.pt + rows.first - p0 * g.sh;
  return {correlation, scratch, 0};
}

// --- forward -----------------------------------------------------------------------------------

// Computes bands of the depthwise result of a channels_last input of S.
template <class S>
class DepthwiseBands {
  using T = Real<S>;

 public:
  // `bias` may be null. Repeated weights are shared by all threads, or with `own_weights` copied to
  // the memory that each thread keeps, since another core's cache is slow.
  DepthwiseBands(const Geometry& geometry, const BandPlan& band, const T* kernel, const T* bias,
                 bool own_weights = false)
      : g(geometry),
        plan_(band),
        kernel_(kernel),
        bias_(bias),
        own_weights_(own_weights),
        shared_(own_weights ? 0 : band.spread),
        planar_(geometry, band.kernel == DepthwiseKernel::planar ? band.rows : 0) {
    if (band.kernel == DepthwiseKernel::flat && !own_weights) spread(shared_.get());
  }

  // Where the bands go a channel at a time.
  const Planar<T>& planar() const { return planar_; }

  // Outputs of one image; `x` is its start, `scratch` is as the plan says. `kept` is the thread's,
  // where it has weights of its own. `Out` is S, or what a product reads, of numbers rounded to S.
  template <class Out>
  void compute(const S* x, Activation activation, const Box& box, Out* out, int64_t out_row,
               int64_t out_pixel, T* scratch, Kept* kept = nullptr) const {
    if (plan_.kernel == DepthwiseKernel::planar) {
      const int64_t rows = box.p1 - box.p0;
      each_forward_plane(planar_, x, 0, box.p0, rows, box.c0, box.c1, kernel_, bias_, activation,
                         scratch, [&](int64_t o, T* flat) {
                           if constexpr (!kSame<S, Out>) put_run<S>(flat, rows * pitch(), flat);
                           for (int64_t p = 0; p < rows; ++p)
                             scatter_run(flat + p * pitch(), g.wo, out_pixel,
                                         out + p * out_row + o);
                         });
    } else if constexpr (kIsHalf<S>) {
      if (plan_.kernel == DepthwiseKernel::flat)
        compute_flat(x, activation, box, out, out_row, out_pixel, scratch, kept);
      else if (plan_.widened.together == 0)
        correlate_small(forward_correlation(g), x, kernel_, bias_, activation, box, out, out_row,
                        out_pixel,
                        plan_.correlation.strip == 0 ? nullptr : reinterpret_cast<S*>(scratch));
      else
        compute_widened(x, activation, box, out, out_row, out_pixel, scratch);
    } else {
      if (plan_.kernel == DepthwiseKernel::flat) {
        flat(kept).compute(x, box.p0, box.p1, box.q0, box.q1, early(activation), out, out_row,
                           scratch);
        if (is_late(activation)) activate_box(box, out, out_row, out_pixel, activation);
      } else {
        const Expanded<T> band = expand(g, x, box.p0, box.p1, scratch);
        const Box local{band.p0, band.p0 + box.p1 - box.p0, box.q0, box.q1, box.c0, box.c1};
        correlate(plan_.correlation, band.correlation, band.image, kernel_, bias_, activation,
                  local, out, out_row, out_pixel, scratch + plan_.expanded);
      }
    }
  }

 private:
  int64_t pitch() const { return planar_.pitch; }
  FlatRows<T> flat(Kept* kept) const {
    const T* weights =
        own_weights_ ? filled_once<T>(kept, [&](T* to) { spread(to); }) : shared_.get();
    return {flat_sizes<T>(g), bias_ != nullptr, weights};
  }
  // A box of all channels, of a half type.
  template <class Out>
  void compute_flat(const S* x, Activation activation, const Box& box, Out* out, int64_t out_row,
                    int64_t out_pixel, T* scratch, Kept* kept) const {
    const int64_t channels = g.c * g.m, columns = box.q1 - box.q0;
    T* const tile = scratch + plan_.widened.window;
    flat(kept).compute(x, box.p0, box.p1, box.q0, box.q1, early(activation), tile,
                       columns * channels, scratch);
    put_tile<S>(tile, box.p1 - box.p0, columns, channels, activation, out, out_row, out_pixel);
  }
  // A box by vectors of channels, of a half type.
  template <class Out>
  void compute_widened(const S* x, Activation activation, const Box& box, Out* out, int64_t out_row,
                       int64_t out_pixel, T* scratch) const {
    const Correlation whole = forward_correlation(g);
    const int64_t rows = box.p1 - box.p0;
    T* const tile = scratch + plan_.widened.window;
    each_widened_part<T>(
        plan_.widened, box.q1 - box.q0, box.c0, box.c1, [&](Range q, int64_t c, int64_t count) {
          const int64_t q0 = box.q0 + q.first, columns = q.last - q.first;
          const Window window =
              inside_image(whole, window_of(whole, box.p0, box.p1, q0, q0 + columns));
          widen_window(x, g.w, g.c, g.m, window, c, count, scratch);
          correlate<T>(plan_.correlation,
                       widened_correlation(whole, window, box.p0, q0, columns, count), scratch,
                       kernel_ + c, bias_ == nullptr ? nullptr : bias_ + c, early(activation),
                       Box{0, rows, 0, columns, 0, count}, tile, columns * count, count,
                       scratch + plan_.widened.elements());
          put_tile<S>(tile, rows, columns, count, activation,
                      out + q.first * out_pixel + (c - box.c0), out_row, out_pixel);
        });
  }
  void spread(T* to) const {
    const auto weight = [&](int64_t i, int64_t j, int64_t c, int64_t m) {
      return kernel_[((i * g.kw + j) * g.c + c) * g.m + m];
    };
    FlatRows<T>::spread(flat_sizes<T>(g), bias_, weight, to);
  }
  static void activate_box(const Box& box, T* out, int64_t out_row, int64_t out_pixel,
                           Activation activation) {
    const int64_t channels = box.c1 - box.c0, columns = box.q1 - box.q0;
    const bool joined = out_pixel == channels;
    for (int64_t p = 0; p < box.p1 - box.p0; ++p)
      activate_late(out + p * out_row, joined ? 1 : columns, out_pixel,
                    joined ? columns * channels : channels, activation);
  }

  const Geometry& g;
  const BandPlan plan_;
  const T* const kernel_;
  const T* const bias_;
  const bool own_weights_;
  const Workspace<T> shared_;
  const Planar<T> planar_;
};

template <class S>
void depthwise_forward_last(const Geometry& g, const DepthwisePlan& plan, const S* x,
                            const Real<S>* kernel, const Real<S>* bias, Activation activation, S* y,
                            Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m;
  const Cut& bands = plan.bands;
  const int64_t pieces = plan.row_pieces, parts = plan.channel_parts;
  const DepthwiseBands<S> depthwise(g, plan.band, kernel, bias, true);
  parallel_keeping<T>(runner, plan.tasks, plan.scratch, plan.kept,
                      [&](int64_t task, T* scratch, Kept* kept) {
                        const int64_t part = task % parts, piece = task / parts % pieces;
                        const int64_t band = task / parts / pieces % bands.count;
                        const int64_t n = task / parts / pieces / bands.count;
                        const Range c = channel_part<T>(channels, parts, part);
                        const Box box{bands.first(band),
                                      bands.first(band + 1),
                                      part_start(g.wo, pieces, piece),
                                      part_start(g.wo, pieces, piece + 1),
                                      c.first,
                                      c.last};
                        S* out = y + ((n * g.ho + box.p0) * g.wo + box.q0) * channels + c.first;
                        depthwise.compute(x + n * g.h * g.w * g.c, activation, box, out,
                                          g.wo * channels, channels, scratch, kept);
                      });
}

template <class S>
void depthwise_forward_first(const Geometry& g, const DepthwisePlan& plan, const S* x,
                             const Real<S>* kernel, const Real<S>* bias, Activation activation,
                             S* y, Runner& runner) {
  using T = Real<S>;
  const int64_t channels = g.c * g.m;
  const Cut& bands = plan.bands;
  const Planar<T> planar(g, plan.band.rows);
  parallel<T>(runner, plan.tasks, plan.scratch, [&](int64_t task, T* scratch) {
    const int64_t band = task % bands.count, c = task / bands.count % g.c;
    const int64_t n = task / bands.count / g.c;
    const int64_t p0 = bands.first(band);
    const int64_t rows = bands.first(band + 1) - p0;
    each_forward_plane(planar, x, n, p0, rows, c * g.m, (c + 1) * g.m, kernel, bias, activation,
                       scratch, [&](int64_t o, const T* flat) {
                         S* out = y + ((n * channels + o) * g.ho + p0) * g.wo;
                         for (int64_t p = 0; p < rows; ++p)
                           scatter_run(flat + p * planar.pitch, g.wo, int64_t{1}, out + p * g.wo);
                       });
  });
}

// Tensors are of S, weights of Real<S>.
template <class S>
void depthwise_forward(const Geometry& g, const S* x, const Real<S>* kernel, const Real<S>* bias,
                       Activation activation, S* y, Runner& runner,
                       DepthwiseKernel wanted = DepthwiseKernel::none) {
  if (!all_finite(kernel, g.kh * g.kw * g.c * g.m)) {
    exact_forward(g, x, kernel, bias, activation, y, runner);
    return;
  }
  if (is_turned<S>(g, wanted)) {
    const int64_t in = g.h * g.w, out = g.ho * g.wo;
    const int64_t image = g.c * (in + out) * static_cast<int64_t>(sizeof(S));
    Geometry part = g;
    each_part(g.n, max_of(1, tuning::kPartBytes / image), [&](int64_t first, int64_t images, bool) {
      part.n = images;
      const Turned<S> x_last(images, g.c, in, x + first * g.c * in, runner);
      const Turned<S> y_last(images, g.c, out, true);
      depthwise_forward(turned(part), x_last.get(), kernel, bias, activation, y_last.get(), runner);
      y_last.put_back(y + first * g.c * out, runner);
    });
    return;
  }
  const DepthwisePlan plan = plan_depthwise_forward<S>(g, runner.concurrency(), wanted);
  if (g.channels_first)
    depthwise_forward_first(g, plan, x, kernel, bias, activation, y, runner);
  else
    depthwise_forward_last(g, plan, x, kernel, bias, activation, y, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
