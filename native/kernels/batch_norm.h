// Batch normalization in training: the mean and variance of each channel, the result, and the
// gradients.
//
// Arrays are summed in parts whose size depends on the array's shape alone. A part is summed in T,
// as differences from one of its values, so that a large mean costs no digits; parts are added in
// double, in a fixed order. So results do not depend on the number of threads.
#pragma once
#include "../operation.h"
#include "../tuning.h"
#include "lanes.h"
#include "parallel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

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

// The factors of dx = a * dy + b * (x - mean) + c, from a channel's sums of dy and of dy * (x -
// mean); and the gradients of the channel's gamma and beta.
template <class T>
struct ChannelGradient {
  ChannelGradient(const BatchNorm& s, const BatchNormBackward& args, int64_t channel, double dy,
                  double dy_x) {
    const double count = static_cast<double>(s.outer * s.inner);
    const double inverse = inverse_deviation(
        static_cast<double>(static_cast<const T*>(args.variance)[channel]), s.epsilon);
    const double scale = inverse * value_or(static_cast<const T*>(args.gamma), channel, 1);
    a = static_cast<T>(scale);
    b = static_cast<T>(-scale * inverse * inverse * dy_x / count);
    c = static_cast<T>(-scale * dy / count);
    static_cast<T*>(args.dgamma)[channel] = static_cast<T>(inverse * dy_x);
    static_cast<T*>(args.dbeta)[channel] = static_cast<T>(dy);
  }
  T a, b, c;
};

// ---- channels_last: rows of channels

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
  }
  int64_t first(int64_t part) const { return part_start(whole, count, part); }
  // Calls f.operator()<rows>(offset, width) for all rows of a part, four at a time where it can.
  template <class F>
  void for_rows(int64_t part, const F& f) const {
    int64_t row = first(part);
    const int64_t end = first(part + 1);
    for (; row + 4 <= end; row += 4) f.template operator()<4>(row * width, width);
    for (; row < end; ++row) f.template operator()<1>(row * width, width);
    if (part == count - 1 && rest != 0) f.template operator()<1>(whole * width, rest * channels);
  }
  // The number of values that a part has in each column of repetition `index`.
  int64_t values(int64_t part, int64_t index) const {
    return first(part + 1) - first(part) + (part == count - 1 && index < rest ? 1 : 0);
  }

  int64_t channels, repeat = 1, width, padded, whole, rest, count;
};

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
template <class T>
void part_moments(const WideRows<T>& rows, int64_t part, const T* x, T* means, T* squares) {
  fill_zero(means, 2 * rows.padded);  // the squares lie behind them
  const T* about = x + rows.first(part) * rows.width;
  rows.for_rows(part, [&]<int kRows>(int64_t offset, int64_t width) {
    const T* at = x + offset;
    for_columns<T>(width, [&](int64_t column, auto lanes) {
      const Vec<T> shift = lanes.get(about + column);
      Vec<T> d = lanes.get(at + column) - shift;
      Vec<T> total = d, squared = d * d;
      for (int r = 1; r < kRows; ++r) {
        d = lanes.get(at + r * rows.width + column) - shift;
        total += d;
        squared += d * d;
      }
      store(means + column, load(means + column) + total);
      store(squares + column, load(squares + column) + squared);
    });
  });
  for (int64_t r = 0; r < rows.repeat; ++r) {
    const T values = static_cast<T>(rows.values(part, r));
    if (values == 0) break;
    for (int64_t column = r * rows.channels; column < (r + 1) * rows.channels; ++column) {
      const T mean = means[column] / values;
      squares[column] -= mean * means[column];
      means[column] = mean;
    }
  }
}

template <class T>
void rows_forward(const BatchNorm& s, const BatchNormForward& args, Runner& runner) {
  const T *x = static_cast<const T*>(args.x), *gamma = static_cast<const T*>(args.gamma),
          *beta = static_cast<const T*>(args.beta);
  T* const y = static_cast<T*>(args.y);
  const WideRows<T> rows(s.outer, s.channels);
  const PartSums<T> sums(rows);
  const RowNumbers<T, 3> numbers(rows);
  parallel<T>(runner, rows.count, 0, [&](int64_t part, T*) {
    part_moments(rows, part, x, sums.first(part), sums.second(part));
  });
  for_channels<T>(runner, s.channels, [&](int64_t channel, int64_t count) {
    const double total = static_cast<double>(s.outer);
    double mean[kSumChannels] = {}, square[kSumChannels] = {};
    // In double: in T, a mean leaves few digits for its difference from other means.
    sums.for_parts(channel, [&](double values, const T* means, const T*, int64_t offset) {
      for (int64_t i = 0; i < count; ++i)
        mean[i] += values * (static_cast<double>(x[offset + i]) + static_cast<double>(means[i]));
    });
    for (int64_t i = 0; i < count; ++i) mean[i] /= total;
    sums.for_parts(channel, [&](double values, const T* means, const T* squares, int64_t offset) {
      for (int64_t i = 0; i < count; ++i) {
        const double apart =
            static_cast<double>(x[offset + i]) - mean[i] + static_cast<double>(means[i]);
        square[i] += static_cast<double>(squares[i]) + values * apart * apart;
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      const int64_t c = channel + i;
      const double variance = not_negative(square[i] / total);
      static_cast<T*>(args.mean)[c] = static_cast<T>(mean[i]);
      static_cast<T*>(args.variance)[c] = static_cast<T>(variance);
      numbers.set(0, c, static_cast<T>(mean[i]));
      numbers.set(1, c,
                  static_cast<T>(inverse_deviation(variance, s.epsilon) * value_or(gamma, c, 1)));
      numbers.set(2, c, static_cast<T>(value_or(beta, c, 0)));
    }
  });
  if (y == nullptr) return;
  parallel<T>(runner, rows.count, 0, [&](int64_t part, T*) {
    rows.for_rows(part, [&]<int kRows>(int64_t offset, int64_t width) {
      for_columns<T>(width, [&](int64_t column, auto lanes) {
        const Vec<T> mean = load(numbers[0] + column), scale = load(numbers[1] + column),
                     shift = load(numbers[2] + column);
        for (int r = 0; r < kRows; ++r) {
          const int64_t at = offset + r * rows.width + column;
          lanes.put(y + at, (lanes.get(x + at) - mean) * scale + shift);
        }
      });
    });
  });
}

template <class T>
void rows_backward(const BatchNorm& s, const BatchNormBackward& args, Runner& runner) {
  const T *x = static_cast<const T*>(args.x), *dy = static_cast<const T*>(args.dy);
  T* const dx = static_cast<T*>(args.dx);
  const WideRows<T> rows(s.outer, s.channels);
  const PartSums<T> sums(rows);
  const RowNumbers<T, 4> numbers(rows);
  for (int64_t c = 0; c < s.channels; ++c) numbers.set(0, c, static_cast<const T*>(args.mean)[c]);
  parallel<T>(runner, rows.count, 0, [&](int64_t part, T*) {
    T *first = sums.first(part), *second = sums.second(part);
    fill_zero(first, 2 * rows.padded);
    rows.for_rows(part, [&]<int kRows>(int64_t offset, int64_t width) {
      for_columns<T>(width, [&](int64_t column, auto lanes) {
        const Vec<T> mean = load(numbers[0] + column);
        Vec<T> total = load(first + column), product = load(second + column);
        for (int r = 0; r < kRows; ++r) {
          const int64_t at = offset + r * rows.width + column;
          const Vec<T> d = lanes.get(dy + at);
          total += d;
          product += d * (lanes.get(x + at) - mean);
        }
        store(first + column, total);
        store(second + column, product);
      });
    });
  });
  for_channels<T>(runner, s.channels, [&](int64_t channel, int64_t count) {
    double total[kSumChannels] = {}, product[kSumChannels] = {};
    sums.for_parts(channel, [&](double, const T* totals, const T* products, int64_t) {
      for (int64_t i = 0; i < count; ++i) {
        total[i] += static_cast<double>(totals[i]);
        product[i] += static_cast<double>(products[i]);
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      const ChannelGradient<T> g(s, args, channel + i, total[i], product[i]);
      numbers.set(1, channel + i, g.a);
      numbers.set(2, channel + i, g.b);
      numbers.set(3, channel + i, g.c);
    }
  });
  if (dx == nullptr) return;
  parallel<T>(runner, rows.count, 0, [&](int64_t part, T*) {
    rows.for_rows(part, [&]<int kRows>(int64_t offset, int64_t width) {
      for_columns<T>(width, [&](int64_t column, auto lanes) {
        const Vec<T> mean = load(numbers[0] + column), a = load(numbers[1] + column),
                     b = load(numbers[2] + column), c = load(numbers[3] + column);
        for (int r = 0; r < kRows; ++r) {
          const int64_t at = offset + r * rows.width + column;
          lanes.put(dx + at, a * lanes.get(dy + at) + (b * (lanes.get(x + at) - mean) + c));
        }
      });
    });
  });
}

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
  double mean = 0, square = 0, seen = 0;
  for_plane_parts<T>(s, channel, [&](int64_t offset, int64_t count) {
    const T* from = x + offset;
    T about = from[0], total, squared;
    plane_sums(count, &total, &squared, [&](int64_t at, auto lanes, Vec<T>& a, Vec<T>& b) {
      // Lanes beyond the end read as 0; they must add nothing.
      const Vec<T> d = lanes.get(from + at) - lanes.only(broadcast(about));
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
  const T* x = static_cast<const T*>(args.x);
  T* const y = static_cast<T*>(args.y);
  parallel<T>(runner, s.channels, 0, [&](int64_t channel, T*) {
    const ChannelMoments moments = plane_moments(s, channel, x);
    static_cast<T*>(args.mean)[channel] = static_cast<T>(moments.mean);
    static_cast<T*>(args.variance)[channel] = static_cast<T>(moments.variance);
    if (y == nullptr) return;
    const Vec<T> mean = broadcast(static_cast<T>(moments.mean)),
                 scale = broadcast(
                     static_cast<T>(inverse_deviation(moments.variance, s.epsilon) *
                                    value_or(static_cast<const T*>(args.gamma), channel, 1))),
                 shift = broadcast(
                     static_cast<T>(value_or(static_cast<const T*>(args.beta), channel, 0)));
    for_plane_parts<T>(s, channel, [&](int64_t offset, int64_t count) {
      for_columns<T>(count, [&](int64_t at, auto lanes) {
        lanes.put(y + offset + at, (lanes.get(x + offset + at) - mean) * scale + shift);
      });
    });
  });
}

template <class T>
void planes_backward(const BatchNorm& s, const BatchNormBackward& args, Runner& runner) {
  const T *x = static_cast<const T*>(args.x), *dy = static_cast<const T*>(args.dy);
  T* const dx = static_cast<T*>(args.dx);
  parallel<T>(runner, s.channels, 0, [&](int64_t channel, T*) {
    const Vec<T> mean = broadcast(static_cast<const T*>(args.mean)[channel]);
    double total = 0, product = 0;
    for_plane_parts<T>(s, channel, [&](int64_t offset, int64_t count) {
      T part_total, part_product;
      plane_sums(count, &part_total, &part_product,
                 [&](int64_t at, auto lanes, Vec<T>& a, Vec<T>& b) {
                   const Vec<T> d = lanes.get(dy + offset + at);
                   a += d;
                   b += d * (lanes.get(x + offset + at) - mean);
                 });
      total += static_cast<double>(part_total);
      product += static_cast<double>(part_product);
    });
    const ChannelGradient<T> g(s, args, channel, total, product);
    if (dx == nullptr) return;
    const Vec<T> a = broadcast(g.a), b = broadcast(g.b), c = broadcast(g.c);
    for_plane_parts<T>(s, channel, [&](int64_t offset, int64_t count) {
      for_columns<T>(count, [&](int64_t at, auto lanes) {
        const int64_t i = offset + at;
        lanes.put(dx + i, a * lanes.get(dy + i) + (b * (lanes.get(x + i) - mean) + c));
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
  s.inner == 1 ? rows_backward<T>(s, args, runner) : planes_backward<T>(s, args, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
