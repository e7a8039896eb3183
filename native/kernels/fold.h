// Sums, largest and smallest numbers: of a row, and of many rows' columns. The order of a sum
// follows from sizes and the level's vectors alone.
#pragma once
#include "../tuning.h"
#include "functions.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class T>
struct Sum {
  static constexpr T start = 0;
  Vec<T> operator()(Vec<T> a, Vec<T> b) const { return a + b; }
  template <class Real>
  Real one(Real a, Real b) const {
    return a + b;
  }
};
template <class T>
struct Largest {
  static constexpr T start = -kInfinity<T>;
  Vec<T> operator()(Vec<T> a, Vec<T> b) const { return larger<T>(a, b); }
  template <class Real>
  Real one(Real a, Real b) const {
    return a > b || a != a ? a : b;
  }
};
template <class T>
struct Smallest {
  static constexpr T start = kInfinity<T>;
  Vec<T> operator()(Vec<T> a, Vec<T> b) const { return smaller<T>(a, b); }
  template <class Real>
  Real one(Real a, Real b) const {
    return a < b || a != a ? a : b;
  }
};

// Of the lanes of a vector.
template <class T, class R>
T fold_lanes(Vec<T> v, const R& r) {
  T values[kLanes<T>];
  store(values, v);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) values[lane] = r.one(values[lane], values[lane + half]);
  return values[0];
}

// Of `count` elements in a row, which term(at, lanes) gives as vectors, in order. Parts of the row
// are folded in T, and these in double.
template <class T, class R, class F>
double fold_row(int64_t count, const R& r, const F& term) {
  constexpr int64_t kVec = kLanes<T>;
  double total = static_cast<double>(R::start);
  for (int64_t first = 0; first < count; first += tuning::kSumRowElements) {
    const int64_t end = min_of(count, first + tuning::kSumRowElements);
    Vec<T> sums[4];
    for (Vec<T>& sum : sums) sum = broadcast(R::start);
    int64_t at = first;
    for (; at + 4 * kVec <= end; at += 4 * kVec)
      for (int v = 0; v < 4; ++v) sums[v] = r(sums[v], term(at + v * kVec, WholeVector<T>{}));
    for (; at + kVec <= end; at += kVec) sums[0] = r(sums[0], term(at, WholeVector<T>{}));
    if (at < end) {
      const FirstLanes<T> lanes{end - at};
      sums[1] = r(sums[1], lanes.only(term(at, lanes), R::start));
    }
    const Vec<T> all = r(r(sums[0], sums[1]), r(sums[2], sums[3]));
    total = r.one(total, static_cast<double>(fold_lanes<T>(all, r)));
  }
  return total;
}

// Of each column of `count` rows that are `step` apart: kVectors vectors of columns, which `lanes`
// reads.
template <class T, int kVectors, class S, class R, class Lanes>
void fold_columns(const S* x, int64_t count, int64_t step, const R& r, const Lanes& lanes,
                  Vec<T> (&totals)[kVectors]) {
  for (Vec<T>& total : totals) total = broadcast(R::start);
  for (int64_t first = 0; first < count; first += tuning::kSumRows) {
    const int64_t end = min_of(count, first + tuning::kSumRows);
    Vec<T> sums[kVectors];
    for (int v = 0; v < kVectors; ++v) sums[v] = lanes.get(x + first * step + v * kLanes<T>);
    for (int64_t row = first + 1; row < end; ++row)
      for (int v = 0; v < kVectors; ++v)
        sums[v] = r(sums[v], lanes.get(x + row * step + v * kLanes<T>));
    for (int v = 0; v < kVectors; ++v) totals[v] = r(totals[v], sums[v]);
  }
}

// Calls f.operator()<kVectors>(column, lanes) for groups of four vectors of columns, for vectors,
// and for what is left.
template <class T, class F>
void for_wide_columns(int64_t width, const F& f) {
  int64_t column = 0;
  for (; column + 4 * kLanes<T> <= width; column += 4 * kLanes<T>)
    f.template operator()<4>(column, WholeVector<T>{});
  for (; column + kLanes<T> <= width; column += kLanes<T>)
    f.template operator()<1>(column, WholeVector<T>{});
  if (column < width) f.template operator()<1>(column, FirstLanes<T>{width - column});
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
