// The depthwise step over whole tensors: which kernel serves which layout, how the work is cut into
// tasks, and how partial sums are put together.
//
// What is added up over tasks is cut by the geometry alone, and in a fixed order, so that results
// do not depend on the number of threads; where a task has whole sums, that number may decide on
// the cut.
#pragma once
#include "../tuning.h"
#include "correlate.h"
#include "exact.h"
#include "flat_rows.h"
#include "planar.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Whether vectors along the channels would not be full, or not be there.
template <class T>
bool is_narrow(const Geometry& g) {
  return g.channels_first || g.c * g.m < kLanes<T>;
}

// Whether the forward pass and the kernel's gradient go along whole rows.
template <class T>
bool is_flat(const Geometry& g) {
  return !g.channels_first && g.sw == 1 && few_channels<T>(g.c, g.m) && g.wo * g.c >= kLanes<T>;
}

template <class T>
bool is_planar(const Geometry& g) {
  return is_narrow<T>(g) && !is_flat<T>(g);
}

template <class T>
FlatSizes flat_sizes(const Geometry& g) {
  return {g.h, g.w, g.c, 1, g.m, g.kh, g.kw, g.sh, g.dh, g.dw, g.pt, g.pl, g.wo};
}

inline Correlation forward_correlation(const Geometry& g) {
  return {g.h, g.w, g.c * g.m, g.kh, g.kw, g.sh, g.sw, g.dh, g.dw, g.pt, g.pl, g.wo};
}

// Rows of `images` images cut into bands: band `index` of image index / count.
struct Bands {
  int64_t total, unit;
  int64_t rows;   // in the largest band
  int64_t count;  // an image
  // The first row of band `index`, or the end of the one before.
  int64_t first(int64_t index) const {
    return min_of(part_start(ceil_div(total, unit), count, index) * unit, total);
  }
};

// Bands of about `wanted` rows of `total`, all as even as they come, of whole units of rows but for
// the last.
inline Bands cut_bands(int64_t total, int64_t wanted, int64_t images = 1, int64_t unit = 1) {
  const int64_t units = ceil_div(total, unit);
  int64_t count = ceil_div(units, min_of(max_of(1, wanted / unit), units));
  if (images % 4 != 0) count = shareable(count, units);
  return {total, unit, ceil_div(units, count) * unit, count};
}

// The input rows [first, last) that output rows [p0, p1) see.
inline TapRange input_rows(const Geometry& g, int64_t p0, int64_t p1) {
  const int64_t first = min_of(max_of(0, p0 * g.sh - g.pt), g.h);
  const int64_t last = min_of(g.h, (p1 - 1) * g.sh + (g.kh - 1) * g.dh + 1 - g.pt);
  return {first, max_of(first, last)};
}

// Repeats each of `count` values `m` times.
template <class T>
void repeat(const T* from, int64_t count, int64_t m, T* to) {
  if (m == 2) {
    for (int64_t i = 0; i < count; ++i) to[2 * i] = to[2 * i + 1] = from[i];
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    for (int64_t r = 0; r < m; ++r) to[i * m + r] = from[i];
}

// A band of the input as the channelwise kernels want it, with c * m channels: the image itself, or
// where m > 1 a copy of its rows in scratch with every channel repeated.
template <class T>
struct Expanded {
  Correlation correlation;
  const T* image;
  int64_t p0;  // the band's first output row in terms of `correlation`
};

template <class T>
int64_t expanded_elements(const Geometry& g, int64_t band_rows) {
  if (g.m == 1) return 0;
  return min_of(g.h, (band_rows - 1) * g.sh + (g.kh - 1) * g.dh + 1) * g.w * g.c * g.m;
}

template <class T>
Expanded<T> expand(const Geometry& g, const T* image, int64_t p0, int64_t p1, T* scratch) {
  Correlation correlation = forward_correlation(g);
  if (g.m == 1) return {correlation, image, p0};
  const TapRange rows = input_rows(g, p0, p1);
  repeat(image + rows.first * g.w * g.c, (rows.last - rows.first) * g.w * g.c, g.m, scratch);
  correlation.in_h = rows.last - rows.first;
  correlation.pt = g.pt + rows.first - p0 * g.sh;
  return {correlation, scratch, 0};
}

// --- forward -----------------------------------------------------------------------------------

// How many rows of outputs are best computed together, and bands cut between.
inline int64_t row_unit(const Geometry& g) { return g.kh > 1 && g.dh == 1 ? kSmallRows : 1; }

// Computes bands of the depthwise result of a channels_last input.
template <class T>
class DepthwiseBands {
 public:
  // Bands of at most `band_rows` rows and pieces of at most `columns` columns; `bias` may be null.
  // Where weights are repeated, all threads read the same ones, unless there is to be an own copy
  // in the memory that each keeps: another core's cache is far.
  DepthwiseBands(const Geometry& geometry, const T* kernel, const T* bias, int64_t band_rows,
                 int64_t columns, bool own_weights = false)
      : g(geometry),
        kernel_(kernel),
        bias_(bias),
        kept_(own_weights ? spread_elements() : 0),
        shared_(own_weights ? 0 : spread_elements()),
        planar_(geometry, is_planar<T>(geometry) ? band_rows : 0) {
    if (is_flat<T>(g)) {
      if (!own_weights) spread(shared_.get());
      scratch_ = FlatRows<T>::scratch(flat_sizes<T>(g), band_rows, columns);
    } else if (is_planar<T>(g)) {
      scratch_ = forward_scratch(planar_);
    } else {
      expanded_ = expanded_elements<T>(g, band_rows);
      strip_ = strip_elements<T>(forward_correlation(g), band_rows, 0, columns);
      scratch_ = expanded_ + strip_;
    }
  }

  // Whether a box may have fewer than all channels.
  bool may_split() const { return g.m == 1 && !is_narrow<T>(g); }
  // Whether a box may have fewer than all columns.
  bool may_cut() const { return is_flat<T>(g) || may_split(); }
  int64_t scratch() const { return scratch_; }
  // Elements that a thread is to keep from task to task.
  int64_t kept() const { return kept_; }

  // Outputs of one image; `x` is its start. `kept` is the thread's, where it is to keep something.
  void compute(const T* x, Activation activation, const Box& box, T* out, int64_t out_row,
               int64_t out_pixel, T* scratch, Kept* kept = nullptr) const {
    if (is_planar<T>(g)) {
      const int64_t rows = box.p1 - box.p0;
      each_forward_plane(planar_, x, 0, box.p0, rows, box.c0, box.c1, kernel_, bias_, activation,
                         scratch, [&](int64_t o, const T* flat) {
                           for (int64_t p = 0; p < rows; ++p)
                             scatter_run(flat + p * planar_.pitch, g.wo, out_pixel,
                                         out + p * out_row + o);
                         });
      return;
    }
    if (is_flat<T>(g)) {
      const T* weights =
          kept_ == 0 ? shared_.get() : filled_once<T>(kept, [&](T* to) { spread(to); });
      FlatRows<T>(flat_sizes<T>(g), bias_ != nullptr, weights)
          .compute(x, box.p0, box.p1, box.q0, box.q1, early(activation), out, out_row, scratch);
    } else {
      const Expanded<T> band = expand(g, x, box.p0, box.p1, scratch);
      const Box local{band.p0, band.p0 + box.p1 - box.p0, box.q0, box.q1, box.c0, box.c1};
      correlate(band.correlation, band.image, kernel_, bias_, early(activation), local, out,
                out_row, out_pixel, strip_ == 0 ? nullptr : scratch + expanded_);
    }
    if (is_late(activation)) activate_box(box, out, out_row, out_pixel, activation);
  }

 private:
  int64_t spread_elements() const {
    return is_flat<T>(g) ? FlatRows<T>::weights(flat_sizes<T>(g), bias_ != nullptr) : 0;
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
    for (int64_t p = 0; p < box.p1 - box.p0; ++p) {
      T* row = out + p * out_row;
      if (out_pixel == channels)
        activate_late(row, columns * channels, activation);
      else
        for (int64_t q = 0; q < columns; ++q)
          activate_late(row + q * out_pixel, channels, activation);
    }
  }

  const Geometry& g;
  const T* const kernel_;
  const T* const bias_;
  const int64_t kept_;
  const Workspace<T> shared_;
  const Planar<T> planar_;
  int64_t expanded_ = 0, strip_ = 0, scratch_;  // elements
};

// Whether bands may be as low as a tile: where the rows that they share with their neighbours are
// few, and read from the image as it is.
template <class T>
bool may_be_low(const Geometry& g) {
  return g.m == 1 && !is_narrow<T>(g) && g.dh == 1 &&
         pick_small<T>(forward_correlation(g)) != nullptr;
}

// How many tasks a pass is worth. Where that makes bands or parts of channels that are less than
// whole ones to go through: one a thread if all is a matter of microseconds, some for each if it is
// not.
template <class T>
int64_t wanted_tasks(const Geometry& g, int64_t threads) {
  if (!may_be_low<T>(g)) return tuning::kTasks;
  const int64_t all = g.n * g.ho * g.wo * ceil_div(g.c, kLanes<T>) * g.kh * g.kw;
  return threads *
         min_of(max_of(1, all / tuning::kTaskVectorProducts / threads), tuning::kTasksAThread);
}

// Bands of about `rows` rows of `total`, or lower ones where that makes fewer tasks than wanted.
template <class T>
Bands cut_task_bands(const Geometry& g, int64_t threads, int64_t total, int64_t rows,
                     int64_t unit) {
  const Bands bands = cut_bands(total, rows, g.n, unit);
  const int64_t wanted = wanted_tasks<T>(g, threads);
  if (g.n * bands.count >= wanted || !may_be_low<T>(g)) return bands;
  return cut_bands(total, max_of(unit, ceil_div(total, ceil_div(wanted, max_of(1, g.n)))), g.n,
                   unit);
}

// How many parts the channels are cut into where `tasks` are fewer than wanted. Parts begin at
// whole vectors; of what comes from memory they are of a KiB a pixel or more, since it is slow at
// less.
template <class T>
int64_t channel_parts(const Geometry& g, int64_t threads, int64_t tasks) {
  const int64_t wanted = wanted_tasks<T>(g, threads);
  if (is_narrow<T>(g) || g.m != 1 || tasks >= wanted) return 1;
  const int64_t vectors = g.c / kLanes<T>;
  const int64_t pixel = g.c * static_cast<int64_t>(sizeof(T));
  const int64_t most =
      g.h * g.w * pixel > tuning::kFarBytes
          ? min_of(wanted, max_of(tuning::kPixelParts, pixel / tuning::kPixelPartBytes))
          : wanted;
  return max_of(1, min_of(most / max_of(1, tasks), vectors <= 8 ? vectors : vectors / 2));
}

// How many pieces the rows of a band are cut into where there are few bands: pieces of some
// thousand outputs, and but for flat ones long beside what they share with their neighbours, and so
// that they leave tiles of dilated outputs whole.
template <class T>
int64_t row_pieces(const Geometry& g, int64_t bands, int64_t rows) {
  if (bands >= 4) return 1;
  const bool flat = is_flat<T>(g);
  const int64_t outputs = rows * g.wo * g.c * g.m,
                least = flat ? 1 : max_of(tuning::kPieceColumns, tuning::kPieceDilations * g.dw);
  const int64_t most =
      min_of(g.wo / least, outputs / (flat ? tuning::kFlatPieceOutputs : tuning::kPieceOutputs));
  return max_of(1, min_of(tuning::kTasks / max_of(1, bands), most));
}

template <class T>
void depthwise_forward_last(const Geometry& g, const T* x, const T* kernel, const T* bias,
                            Activation activation, T* y, Runner& runner) {
  const int64_t channels = g.c * g.m, threads = runner.concurrency();
  int64_t wanted = tuning::kBandElements / max_of(1, channels * g.wo);
  wanted = max_of(wanted, g.m != 1 || is_narrow<T>(g) ? g.kh : least_rows(g));
  const Bands bands = cut_task_bands<T>(g, threads, g.ho, wanted, row_unit(g));
  const DepthwiseBands<T> depthwise(g, kernel, bias, bands.rows, g.wo, true);
  const int64_t pieces = depthwise.may_cut() ? row_pieces<T>(g, g.n * bands.count, bands.rows) : 1;
  const int64_t split =
      depthwise.may_split() ? channel_parts<T>(g, threads, g.n * bands.count * pieces) : 1;
  parallel_keeping<T>(runner, g.n * bands.count * split * pieces, depthwise.scratch(),
                      depthwise.kept(), [&](int64_t task, T* scratch, Kept* kept) {
                        const int64_t part = task % split, piece = task / split % pieces;
                        const int64_t band = task / split / pieces % bands.count;
                        const int64_t n = task / split / pieces / bands.count;
                        const TapRange c = split == 1 ? TapRange{0, channels}
                                                      : channel_range<T>(channels, split, part);
                        const Box box{bands.first(band),
                                      bands.first(band + 1),
                                      part_start(g.wo, pieces, piece),
                                      part_start(g.wo, pieces, piece + 1),
                                      c.first,
                                      c.last};
                        T* out = y + ((n * g.ho + box.p0) * g.wo + box.q0) * channels + c.first;
                        depthwise.compute(x + n * g.h * g.w * g.c, activation, box, out,
                                          g.wo * channels, channels, scratch, kept);
                      });
}

// Rows a band of a plane may have so that its phases stay in a cache.
template <class T>
int64_t planar_rows(const Geometry& g) {
  const int64_t row = (g.wo + (g.kw - 1) * g.dw / g.sw) * g.sh * g.sw;
  return max_of(1, max_of((g.kh - 1) * g.dh / g.sh, tuning::kPlaneElements / max_of(1, row)));
}

template <class T>
void depthwise_forward_first(const Geometry& g, const T* x, const T* kernel, const T* bias,
                             Activation activation, T* y, Runner& runner) {
  const int64_t channels = g.c * g.m;
  const Bands bands = cut_bands(g.ho, planar_rows<T>(g));
  const Planar<T> planar(g, bands.rows);
  parallel<T>(runner, g.n * g.c * bands.count, forward_scratch(planar),
              [&](int64_t task, T* scratch) {
                const int64_t band = task % bands.count, c = task / bands.count % g.c;
                const int64_t n = task / bands.count / g.c;
                const int64_t p0 = bands.first(band);
                const int64_t rows = bands.first(band + 1) - p0;
                each_forward_plane(planar, x, n, p0, rows, c * g.m, (c + 1) * g.m, kernel, bias,
                                   activation, scratch, [&](int64_t o, const T* flat) {
                                     T* out = y + ((n * channels + o) * g.ho + p0) * g.wo;
                                     for (int64_t p = 0; p < rows; ++p)
                                       scatter_run(flat + p * planar.pitch, g.wo, int64_t{1},
                                                   out + p * g.wo);
                                   });
              });
}

template <class T>
void depthwise_forward(const Geometry& g, const T* x, const T* kernel, const T* bias,
                       Activation activation, T* y, Runner& runner) {
  if (!all_finite(kernel, g.kh * g.kw * g.c * g.m))
    exact_forward(g, x, kernel, bias, activation, y, runner);
  else if (g.channels_first)
    depthwise_forward_first(g, x, kernel, bias, activation, y, runner);
  else
    depthwise_forward_last(g, x, kernel, bias, activation, y, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
