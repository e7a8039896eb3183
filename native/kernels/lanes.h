// Loops over the elements of a row, a vector at a time, with what is left at its end.
#pragma once
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class T>
struct LaneNumbers {
  static constexpr T values[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
};

// A whole vector, and the lanes that are left at the end of a row. only() has `rest` in the lanes
// that are none of the row's.
template <class T>
struct WholeVector {
  Vec<T> get(const T* p) const { return load(p); }
  void put(T* p, Vec<T> v) const { store(p, v); }
  Vec<T> only(Vec<T> v, T = 0) const { return v; }
};
template <class T>
struct FirstLanes {
  int64_t count;
  Vec<T> get(const T* p) const { return load_first(p, count); }
  void put(T* p, Vec<T> v) const { store_first(p, v, count); }
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
