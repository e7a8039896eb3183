// Loops over the elements of a row, a vector at a time, with what is left at its end.
//
// Lanes are of T, and read and write elements of T, or of a half type where T is float32.
#pragma once
#include "half.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class T>
struct LaneNumbers {
  static constexpr T values[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
};

// A whole vector, and the lanes that are left at the end of a row. only() has `rest` in the lanes
// that are none of the row's.
template <class T>
struct WholeVector {
  template <class S>
  Vec<T> get(const S* p) const {
    return load_real(p);
  }
  template <class S>
  void put(S* p, Vec<T> v) const {
    store_real(p, v);
  }
  Vec<T> only(Vec<T> v, T = 0) const { return v; }
};
template <class T>
struct FirstLanes {
  int64_t count;
  template <class S>
  Vec<T> get(const S* p) const {
    return load_real_first(p, count);
  }
  template <class S>
  void put(S* p, Vec<T> v) const {
    store_real_first(p, v, count);
  }
  Vec<T> only(Vec<T> v, T rest = 0) const {
    return load(LaneNumbers<T>::values) < broadcast(static_cast<T>(count)) ? v : broadcast(rest);
  }
};

template <class T, class F>
void for_columns(int64_t width, const F& f) {
  int64_t column = 0;
  for (; column + kLanes<T> <= width; column += kLanes<T>) f(column, WholeVector<T>{});
  if (column < width) f(column, FirstLanes<T>{width - column});
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
