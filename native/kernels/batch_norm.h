// Batch normalization in training, and the activation after it: the mean and variance of each
// channel, the result, and the gradients. The gradients' passes compute the activation's operand
// again, to the bit as the forward pass did.
//
// Arrays of T are read as Real<T>, in which the numbers of channels are too: a half type's are
// float32's. They are summed in parts whose size depends on the array's shape alone. A part is
// summed in Real<T>, as differences from one of its values, so that a large mean costs no digits;
// parts are added in double, in a fixed order. So results do not depend on the number of threads.
// y and dx are rounded once.
#pragma once
#include "../operation.h"
#include "../tuning.h"
#include "activation_gradient.h"
#include "half.h"
#include "lanes.h"
#include "parallel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class T>
double in_double(T value) {
  return static_cast<double>(real(value));
}

// ---- one channel's numbers

struct ChannelMoments {
  double mean, variance;
};

// NaN stays NaN.
inline double not_negative(double value) { return value < 0 ? 0 : value; }

inline double inverse_deviation(double variance, double epsilon) {
  return 1 / __builtin_sqrt(variance + epsilon);
}

template <class T>
double value_or(const T* values, int64_t index, double otherwise) {
  return values == nullptr ? otherwise : static_cast<double>(values[index]);
}

// What a channel's differences from the mean are multiplied by: of the variance that is handed on,
// so that forward and backward have the same bits.
template <class T>
double scale_of(const BatchNorm& s, T variance, const void* gamma, int64_t channel) {
  return inverse_deviation(static_cast<double>(variance), s.epsilon) *
         value_or(static_cast<const T*>(gamma), channel, 1);
}

template <class T>
T shift_of(const void* beta, int64_t channel) {
  return static_cast<T>(value_or(static_cast<const T*>(beta), channel, 0));
}

// The result before its activation.
template <class T>
inline Vec<T> normalized(Vec<T> x, Vec<T> mean, Vec<T> scale, Vec<T> shift) {
  return (x - mean) * scale + shift;
}

// The factors of dx = scale * dy + b * (x - mean) + c, from a channel's sums of dy and of dy * (x -
// mean); and the gradients of the channel's gamma and beta.
template <class T>
struct ChannelGradient {
  ChannelGradient(const BatchNorm& s, const BatchNormBackward& args, int64_t channel, double dy,
                  double dy_x) {
    const double count = static_cast<double>(s.outer * s.inner);
    const T variance = static_cast<const T*>(args.variance)[channel];
    const double inverse = inverse_deviation(static_cast<double>(variance), s.epsilon);
    const double factor = scale_of(s, variance, args.gamma, channel);
    scale = static_cast<T>(factor);
    b = static_cast<T>(-factor * inverse * inverse * dy_x / count);
    c = static_cast<T>(-factor * dy / count);
    static_cast<T*>(args.dgamma)[channel] = static_cast<T>(inverse * dy_x);
    static_cast<T*>(args.dbeta)[channel] = static_cast<T>(dy);
  }
  T scale, b, c;
};

// ---- channels_last: rows of channels

// With few registers a pass goes through a row some 64 bytes at a time, which is too little for the
// processor to ask for memory ahead: the passes ask for the next group of rows themselves.
inline constexpr bool kFewRegisters = kRegisters < 32;
inline constexpr int64_t kGroupBytes =
    kFewRegisters ? tuning::kBatchNormGroupBytesOf16 : tuning::kBatchNormGroupBytesOf32;

// An array [rows, channels] seen as rows that are `repeat` times as wide, so that few channels fill
// vectors too, and the parts that these rows are cut into.
template <class T>
struct WideRows {
  WideRows(int64_t rows, int64_t channels) : channels(channels) {
    int64_t step = 1;  // rows that together are whole vectors
    while (step * channels % kLanes<T> != 0) step *= 2;
    if (channels < 4 * kLanes<T>) repeat = round_up(ceil_div(4 * kLanes<T>, channels), step);
    width = repeat * channels;
    padded = round_up(width, kLanes<T>);
    whole = rows / repeat;
    rest = rows % repeat;
    const int64_t a_part =
        max_of(16, tuning::kBatchNormPartBytes / (width * static_cast<int64_t>(sizeof(T))));
    count = max_of(1, whole / a_part);
    group = max_of(kFewRegisters ? 2 : 8, kGroupBytes / (width * static_cast<int64_t>(sizeof(T))));
  }
  int64_t first(int64_t part) const { return part_start(whole, count, part); }
  // Calls f(offset, rows, width) for all rows of a part, some at a time: rows of `width` values
  // that are `this->width` apart.
  template <class F>
  void for_groups(int64_t part, const F& f) const {
    const int64_t end = first(part + 1);
    for (int64_t row = first(part); row < end; row += group)
      f(row * width, min_of(group, end - row), width);
    if (part == count - 1 && rest != 0) f(whole * width, int64_t{1}, rest * channels);
  }
  // The number of values that a part has in each column of repetition `index`.
  int64_t values(int64_t part, int64_t index) const {
    return first(part + 1) - first(part) + (part == count - 1 && index < rest ? 1 : 0);
  }

  int64_t channels, repeat = 1, width, padded, whole, rest;
  int64_t count;  // parts
  int64_t group;  // rows that are read together, one after the other in memory
};

// Calls f.operator()<vectors>(column, lanes) for all columns of a row: kMost vectors at a time,
// then fewer, and last the lanes that are left.
template <class T, int kMost, class F>
void for_column_blocks(int64_t width, const F& f) {
  int64_t column = 0;
  const auto blocks = [&]<int kVectors>(auto&& self) {
    for (; column + kVectors * kLanes<T> <= width; column += kVectors * kLanes<T>)
      f.template operator()<kVectors>(column, WholeVector<T>{});
    if constexpr (kVectors > 1) self.template operator()<kVectors / 2>(self);
  };
  blocks.template operator()<kMost>(blocks);
  if (column < width) f.template operator()<1>(column, FirstLanes<T>{width - column});
}

// Vectors of a row whose `numbers` each are in registers from row to row, or nearly so.
constexpr int row_vectors(int numbers) {
  int vectors = kRegisters == 32 ? 8 : 4;
  while (vectors * numbers > kRegisters) vectors /= 2;
  return vectors;
}

// Calls f(offset, lanes, numbers, sums) for every vector of a part: its place in the array, and the
// numbers and sums of its columns, which are in registers from row to row. In memory each number's,
// and each sum's, are `rows.padded` behind those of the one before. `arrays` are those that `f`
// reads.
template <int kNumbers, int kSums, class T, class N, class F, class... Arrays>
void for_vectors(const WideRows<T>& rows, int64_t part, const N* numbers, T* sums, const F& f,
                 const Arrays*... arrays) {
  [[maybe_unused]] constexpr int kLineVectors = 64 / SEPCONV_VECTOR_BYTES;
  rows.for_groups(part, [&](int64_t offset, int64_t count, int64_t width) {
    const auto block = [&]<int kVectors>(int64_t column, auto lanes) {
      Vec<T> number[kVectors][kNumbers], sum[kVectors][kSums + 1];
      for (int v = 0; v < kVectors; ++v) {
        const int64_t at = column + v * kLanes<T>;
        for (int k = 0; k < kNumbers; ++k) number[v][k] = lanes.get(numbers + k * rows.padded + at);
        for (int k = 0; k < kSums; ++k) sum[v][k] = load(sums + k * rows.padded + at);
      }
      for (int64_t r = 0; r < count; ++r) {
        const int64_t at = offset + r * rows.width + column;
        if constexpr (kFewRegisters)
          for (int v = 0; v < kVectors; v += kLineVectors)
            (__builtin_prefetch(arrays + at + rows.group * rows.width + v * kLanes<T>), ...);
        for (int v = 0; v < kVectors; ++v) f(at + v * kLanes<T>, lanes, number[v], sum[v]);
      }
      for (int v = 0; v < kVectors; ++v)
        for (int k = 0; k < kSums; ++k)
          store(sums + k * rows.padded + column + v * kLanes<T>, sum[v][k]);
    };
    for_column_blocks<T, row_vectors(kNumbers + kSums)>(width, block);
  });
}

// Channels whose sums are added up together.
inline constexpr int64_t kSumChannels = 16;

// Two sums for every column of every part.
template <class T>
class PartSums {
 public:
  explicit PartSums(const WideRows<T>& rows) : rows_(rows), sums_(2 * rows.count * rows.padded) {}
  T* first(int64_t part) const { return sums_.get() + 2 * part * rows_.padded; }
  T* second(int64_t part) const { return first(part) + rows_.padded; }

  // Calls f(values, first sums, second sums, offset) for every part and repetition that has values.
  // The sums are those of the channels from `channel` on; `offset` is the place of the part's first
  // values of them in the array.
  template <class F>
  void for_parts(int64_t channel, const F& f) const {
    for (int64_t part = 0; part < rows_.count; ++part)
      for (int64_t r = 0; r < rows_.repeat; ++r) {
        const int64_t at = r * rows_.channels + channel, values = rows_.values(part, r);
        if (values != 0)
          f(static_cast<double>(values), first(part) + at, second(part) + at,
            rows_.first(part) * rows_.width + at);
      }
  }

 private:
  const WideRows<T>& rows_;
  const Workspace<T> sums_;
};

// Numbers of every channel, repeated like the channels of a wide row.
template <class T, int kNumbers>
class RowNumbers {
 public:
  explicit RowNumbers(const WideRows<T>& rows) : rows_(rows), numbers_(kNumbers * rows.padded) {}
  const T* operator[](int number) const { return numbers_.get() + number * rows_.padded; }
  void set(int number, int64_t channel, T value) const {
    for (int64_t r = 0; r < rows_.repeat; ++r)
      numbers_.get()[number * rows_.padded + r * rows_.channels + channel] = value;
  }

 private:
  const WideRows<T>& rows_;
  const Workspace<T> numbers_;
};

// Calls f(channel, count) for all channels, few at a time.
template <class T, class F>
void for_channels(Runner& runner, int64_t channels, const F& f) {
  constexpr int64_t kTask = 8 * kSumChannels;
  parallel<T>(runner, ceil_div(channels, kTask), 0, [&](int64_t task, T*) {
    const int64_t end = min_of(channels, (task + 1) * kTask);
    for (int64_t channel = task * kTask; channel < end; channel += kSumChannels)
      f(channel, min_of(kSumChannels, end - channel));
  });
}

// The mean of every column of one part, as a difference from the column's first value, and the sum
// of squared differences from the mean.
template <class T, class R = Real<T>>
void part_moments(const WideRows<R>& rows, int64_t part, const T* x, R* means, R* squares) {
  fill_zero(means, 2 * rows.padded);  // the squares lie behind them
  const T* about = x + rows.first(part) * rows.width;
  for_vectors<1, 2>(
      rows, part, about, means,
      [&](int64_t at, auto lanes, const Vec<R>* shift, Vec<R>* sums) {
        const Vec<R> d = lanes.get(x + at) - shift[0];
        sums[0] += d;
        sums[1] += d * d;
      },
      x);
  for (int64_t r = 0; r < rows.repeat; ++r) {
    const R values = static_cast<R>(rows.values(part, r));
    if (values == 0) break;
    for (int64_t column = r * rows.channels; column < (r + 1) * rows.channels; ++column) {
      const R mean = means[column] / values;
      squares[column] -= mean * means[column];
      means[column] = mean;
    }
  }
}

template <class T>
void rows_forward(const BatchNorm& s, const BatchNormForward& args, Runner& runner) {
  using R = Real<T>;
  const T* x = static_cast<const T*>(args.x);
  T* const y = static_cast<T*>(args.y);
  const WideRows<R> rows(s.outer, s.channels);
  const PartSums<R> sums(rows);
  const RowNumbers<R, 3> numbers(rows);
  parallel<R>(runner, rows.count, 0, [&](int64_t part, R*) {
    part_moments(rows, part, x, sums.first(part), sums.second(part));
  });
  for_channels<R>(runner, s.channels, [&](int64_t channel, int64_t count) {
    const double total = static_cast<double>(s.outer);
    double mean[kSumChannels] = {}, square[kSumChannels] = {};
    // In double: in T, a mean leaves few digits for its difference from other means.
    sums.for_parts(channel, [&](double values, const R* means, const R*, int64_t offset) {
      for (int64_t i = 0; i < count; ++i)
        mean[i] += values * (in_double(x[offset + i]) + static_cast<double>(means[i]));
    });
    for (int64_t i = 0; i < count; ++i) mean[i] /= total;
    sums.for_parts(channel, [&](double values, const R* means, const R* squares, int64_t offset) {
      for (int64_t i = 0; i < count; ++i) {
        const double apart = in_double(x[offset + i]) - mean[i] + static_cast<double>(means[i]);
        square[i] += static_cast<double>(squares[i]) + values * apart * apart;
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      const int64_t c = channel + i;
      const double variance = not_negative(square[i] / total);
      const R rounded = static_cast<R>(variance);
      static_cast<R*>(args.mean)[c] = static_cast<R>(mean[i]);
      static_cast<R*>(args.variance)[c] = rounded;
      numbers.set(0, c, static_cast<R>(mean[i]));
      numbers.set(1, c, static_cast<R>(scale_of(s, rounded, args.gamma, c)));
      numbers.set(2, c, shift_of<R>(args.beta, c));
    }
  });
  if (y == nullptr) return;
  with_activation(s.activation, [&]<Activation kActivation>() {
    parallel<R>(runner, rows.count, 0, [&](int64_t part, R*) {
      for_vectors<3, 0>(
          rows, part, numbers[0], static_cast<R*>(nullptr),
          [&](int64_t at, auto lanes, const Vec<R>* n, Vec<R>*) {
            const Vec<R> v = normalized<R>(lanes.get(x + at), n[0], n[1], n[2]);
            lanes.put(y + at, activated<R, kActivation>(v));
          },
          x);
    });
  });
}

// What the gradient of a channel's values is made of, in the order in which a row of numbers a
// channel follows the one before: dx = scale * d + (slope * (x - mean) + offset), where d is the
// gradient before the activation, of (x - mean) * scale + shift.
enum Factor { kMean, kScale, kShift, kSlope, kOffset };

// The gradient before the activation, from dy; `n` are a column's numbers, by Factor.
template <class R, Activation kActivation>
inline Vec<R> before_activation(Vec<R> dy, Vec<R> x, const Vec<R>* n) {
  if constexpr (kActivation == Activation::none)
    return dy;
  else
    return activation_gradient<R, kActivation>(dy,
                                               normalized<R>(x, n[kMean], n[kScale], n[kShift]));
}

inline constexpr int64_t kBatchNormFactors = kOffset + 1;

// Sums up dy and dy * (x - mean): dgamma, dbeta, and the factors of dx, [kBatchNormFactors,
// channels].
template <class T, Activation kActivation>
void rows_factors(const BatchNorm& s, const BatchNormBackward& args, Real<T>* factors,
                  Runner& runner) {
  using R = Real<T>;
  const T *x = static_cast<const T*>(args.x), *dy = static_cast<const T*>(args.dy);
  const WideRows<R> rows(s.outer, s.channels);
  const PartSums<R> sums(rows);
  // Without an activation the gradient before it takes the mean alone.
  constexpr int kNumbers = kActivation == Activation::none ? kMean + 1 : kShift + 1;
  const RowNumbers<R, kNumbers> numbers(rows);
  for_channels<R>(runner, s.channels, [&](int64_t channel, int64_t count) {
    for (int64_t c = channel; c < channel + count; ++c) {
      const R variance = static_cast<const R*>(args.variance)[c];
      factors[kMean * s.channels + c] = static_cast<const R*>(args.mean)[c];
      factors[kScale * s.channels + c] = static_cast<R>(scale_of(s, variance, args.gamma, c));
      factors[kShift * s.channels + c] = shift_of<R>(args.beta, c);
      for (int k = 0; k < kNumbers; ++k) numbers.set(k, c, factors[k * s.channels + c]);
    }
  });
  parallel<R>(runner, rows.count, 0, [&](int64_t part, R*) {
    fill_zero(sums.first(part), 2 * rows.padded);  // the second ones lie behind the first
    for_vectors<kNumbers, 2>(
        rows, part, numbers[0], sums.first(part),
        [&](int64_t at, auto lanes, const Vec<R>* n, Vec<R>* sum) {
          const Vec<R> value = lanes.get(x + at);
          const Vec<R> d = before_activation<R, kActivation>(lanes.get(dy + at), value, n);
          sum[0] += d;
          sum[1] += d * (value - n[kMean]);
        },
        x, dy);
  });
  for_channels<R>(runner, s.channels, [&](int64_t channel, int64_t count) {
    double total[kSumChannels] = {}, product[kSumChannels] = {};
    sums.for_parts(channel, [&](double, const R* totals, const R* products, int64_t) {
      for (int64_t i = 0; i < count; ++i) {
        total[i] += static_cast<double>(totals[i]);
        product[i] += static_cast<double>(products[i]);
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      const ChannelGradient<R> g(s, args, channel + i, total[i], product[i]);
      factors[kSlope * s.channels + channel + i] = g.b;
      factors[kOffset * s.channels + channel + i] = g.c;
    }
  });
}

// dx of any rows, from the factors of all.
template <class T, Activation kActivation>
class RowGradient {
  using R = Real<T>;

 public:
  RowGradient(int64_t channels, const R* factors) : any_(1, channels), numbers_(any_) {
    for (int k = 0; k <= kOffset; ++k)
      for (int64_t c = 0; c < channels; ++c) numbers_.set(k, c, factors[k * channels + c]);
  }
  // Of one of the parts that rows of these channels are cut into.
  void put(const WideRows<R>& rows, int64_t part, const T* x, const T* dy, T* dx) const {
    for_vectors<kOffset + 1, 0>(
        rows, part, numbers_[0], static_cast<R*>(nullptr),
        [&](int64_t at, auto lanes, const Vec<R>* n, Vec<R>*) {
          const Vec<R> value = lanes.get(x + at);
          const Vec<R> d = before_activation<R, kActivation>(lanes.get(dy + at), value, n);
          lanes.put(dx + at, n[kScale] * d + (n[kSlope] * (value - n[kMean]) + n[kOffset]));
        },
        x, dy);
  }
  // Of `count` rows.
  void put(int64_t count, const T* x, const T* dy, T* dx) const {
    const WideRows<R> rows(count, any_.channels);
    for (int64_t part = 0; part < rows.count; ++part) put(rows, part, x, dy, dx);
  }
  // The same by all threads.
  void put(int64_t count, const T* x, const T* dy, T* dx, Runner& runner) const {
    const WideRows<R> rows(count, any_.channels);
    parallel<T>(runner, rows.count, 0, [&](int64_t part, T*) { put(rows, part, x, dy, dx); });
  }

 private:
  const WideRows<R> any_;  // the place of a channel's numbers does not depend on how many rows
  const RowNumbers<R, kOffset + 1> numbers_;
};

// ---- channels_first: planes

// Independent sums, so that no addition waits for the one before it; and the values of a plane that
// are summed in T, 256 for each lane of each sum.
inline constexpr int kPlaneSums = 4;
template <class T>
inline constexpr int64_t kPlanePart = 256 * kPlaneSums * kLanes<T>;

// Calls f(offset, count) for the planes of one channel, in parts of at most kPlanePart values.
template <class T, class F>
void for_plane_parts(const BatchNorm& s, int64_t channel, const F& f) {
  for (int64_t n = 0; n < s.outer; ++n)
    for (int64_t at = 0; at < s.inner; at += kPlanePart<T>)
      f((n * s.channels + channel) * s.inner + at, min_of(kPlanePart<T>, s.inner - at));
}

// The sums over `count` values of what f(offset, lanes, first, second) adds to two vectors.
template <class T, class F>
void plane_sums(int64_t count, T* first, T* second, const F& f) {
  Vec<T> a[kPlaneSums] = {}, b[kPlaneSums] = {};
  int64_t at = 0;
  for (; at + kPlaneSums * kLanes<T> <= count; at += kPlaneSums * kLanes<T>)
    for (int i = 0; i < kPlaneSums; ++i) f(at + i * kLanes<T>, WholeVector<T>{}, a[i], b[i]);
  for (; at + kLanes<T> <= count; at += kLanes<T>) f(at, WholeVector<T>{}, a[0], b[0]);
  if (at < count) f(at, FirstLanes<T>{count - at}, a[1], b[1]);
  *first = sum<T>((a[0] + a[1]) + (a[2] + a[3]));
  *second = sum<T>((b[0] + b[1]) + (b[2] + b[3]));
}

template <class T>
ChannelMoments plane_moments(const BatchNorm& s, int64_t channel, const T* x) {
  using R = Real<T>;
  double mean = 0, square = 0, seen = 0;
  for_plane_parts<R>(s, channel, [&](int64_t offset, int64_t count) {
    const T* from = x + offset;
    const R about = real(from[0]);
    R total, squared;
    plane_sums(count, &total, &squared, [&](int64_t at, auto lanes, Vec<R>& a, Vec<R>& b) {
      // Lanes beyond the end read as 0; they must add nothing.
      const Vec<R> d = lanes.get(from + at) - lanes.only(broadcast(about));
      a += d;
      b += d * d;
    });
    const double values = static_cast<double>(count), sum_of = static_cast<double>(total);
    const double apart = static_cast<double>(about) + sum_of / values - mean;
    square += static_cast<double>(squared) - sum_of * sum_of / values +
              apart * apart * seen * values / (seen + values);
    mean += apart * values / (seen + values);
    seen += values;
  });
  return {seen > 0 ? mean : square / seen, not_negative(square / seen)};  // of no values: NaN
}

template <class T>
void planes_forward(const BatchNorm& s, const BatchNormForward& args, Runner& runner) {
  using R = Real<T>;
  const T* x = static_cast<const T*>(args.x);
  T* const y = static_cast<T*>(args.y);
  parallel<R>(runner, s.channels, 0, [&](int64_t channel, R*) {
    const ChannelMoments moments = plane_moments<T>(s, channel, x);
    const R variance = static_cast<R>(moments.variance);
    static_cast<R*>(args.mean)[channel] = static_cast<R>(moments.mean);
    static_cast<R*>(args.variance)[channel] = variance;
    if (y == nullptr) return;
    const Vec<R> mean = broadcast(static_cast<R>(moments.mean)),
                 scale = broadcast(static_cast<R>(scale_of(s, variance, args.gamma, channel))),
                 shift = broadcast(shift_of<R>(args.beta, channel));
    with_activation(s.activation, [&]<Activation kActivation>() {
      for_plane_parts<R>(s, channel, [&](int64_t offset, int64_t count) {
        for_columns<R>(count, [&](int64_t at, auto lanes) {
          const Vec<R> v = normalized<R>(lanes.get(x + offset + at), mean, scale, shift);
          lanes.put(y + offset + at, activated<R, kActivation>(v));
        });
      });
    });
  });
}

template <class T, Activation kActivation>
void planes_backward(const BatchNorm& s, const BatchNormBackward& args, Runner& runner) {
  using R = Real<T>;
  const T *x = static_cast<const T*>(args.x), *dy = static_cast<const T*>(args.dy);
  T* const dx = static_cast<T*>(args.dx);
  parallel<R>(runner, s.channels, 0, [&](int64_t channel, R*) {
    const R variance = static_cast<const R*>(args.variance)[channel];
    const Vec<R> mean = broadcast(static_cast<const R*>(args.mean)[channel]),
                 scale = broadcast(static_cast<R>(scale_of(s, variance, args.gamma, channel))),
                 shift = broadcast(shift_of<R>(args.beta, channel));
    // The gradient of the result before its activation.
    const auto gradient = [&](Vec<R> d, Vec<R> value) __attribute__((always_inline)) {
      return activation_gradient<R, kActivation>(d, normalized<R>(value, mean, scale, shift));
    };
    double total = 0, product = 0;
    for_plane_parts<R>(s, channel, [&](int64_t offset, int64_t count) {
      R part_total, part_product;
      plane_sums(count, &part_total, &part_product,
                 [&](int64_t at, auto lanes, Vec<R>& a, Vec<R>& b) {
                   const Vec<R> value = lanes.get(x + offset + at);
                   const Vec<R> d = gradient(lanes.get(dy + offset + at), value);
                   a += d;
                   b += d * (value - mean);
                 });
      total += static_cast<double>(part_total);
      product += static_cast<double>(part_product);
    });
    const ChannelGradient<R> g(s, args, channel, total, product);
    if (dx == nullptr) return;
    const Vec<R> b = broadcast(g.b), c = broadcast(g.c);
    for_plane_parts<R>(s, channel, [&](int64_t offset, int64_t count) {
      for_columns<R>(count, [&](int64_t at, auto lanes) {
        const int64_t i = offset + at;
        const Vec<R> value = lanes.get(x + i), d = gradient(lanes.get(dy + i), value);
        lanes.put(dx + i, scale * d + (b * (value - mean) + c));
      });
    });
  });
}

// ---- either

template <class T>
void batch_norm_forward(const BatchNorm& s, const BatchNormForward& args, Runner& runner) {
  s.inner == 1 ? rows_forward<T>(s, args, runner) : planes_forward<T>(s, args, runner);
}

template <class T>
void batch_norm_backward(const BatchNorm& s, const BatchNormBackward& args, Runner& runner) {
  with_activation(s.activation, [&]<Activation kActivation>() {
    if (s.inner != 1) {
      planes_backward<T, kActivation>(s, args, runner);
      return;
    }
    const Workspace<Real<T>> factors(kBatchNormFactors * s.channels);
    rows_factors<T, kActivation>(s, args, factors.get(), runner);
    if (args.dx == nullptr) return;
    const RowGradient<T, kActivation> gradient(s.channels, factors.get());
    gradient.put(s.outer, static_cast<const T*>(args.x), static_cast<const T*>(args.dy),
                 static_cast<T*>(args.dx), runner);
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
