// What follows from the shapes of two arrays, one of which may be repeated along axes.
#include "broadcast_call.h"

namespace sepconv::program {

Shape broadcast(const Shape& a, const Shape& b) {
  const int rank = a.rank() > b.rank() ? a.rank() : b.rank();
  Shape all;
  for (int i = 0; i < rank; ++i) {
    const int at_a = i - (rank - a.rank()), at_b = i - (rank - b.rank());
    const int64_t of_a = at_a < 0 ? 1 : a[at_a], of_b = at_b < 0 ? 1 : b[at_b];
    if (of_a != of_b && of_a != 1 && of_b != 1)
      fail("The shapes " + a.text() + " and " + b.text() + " do not go together.");
    all.append(of_a == 1 ? of_b : of_a);
  }
  return all;
}

void broadcast_strides(const Shape& shape, const Shape& all, int64_t* strides) {
  int64_t dense[kMostAxes];
  dense_strides(shape, dense);
  const int before = all.rank() - shape.rank();
  for (int i = 0; i < all.rank(); ++i)
    strides[i] = i < before || shape[i - before] == 1 ? 0 : dense[i - before];
}

}  // namespace sepconv::program
