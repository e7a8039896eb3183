// Matrices of images transposed: tensors with the channels first as tensors with the channels last,
// and back.
#pragma once
#include "gemm_pack.h"
#include "parallel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Each of `images` matrices of `rows` by `columns`, transposed.
template <class T>
void transpose_images(int64_t images, int64_t rows, int64_t columns, const T* x, T* y,
                      Runner& runner) {
  constexpr int64_t kBand = 64 / static_cast<int64_t>(sizeof(T));  // a cache line of y
  const int64_t bands = ceil_div(rows, kBand);
  parallel<T>(runner, images * bands, 0, [&](int64_t task, T*) {
    const int64_t image = task / bands * rows * columns, first = task % bands * kBand;
    const int64_t last = min_of(rows, first + kBand);
    const T* const from = x + image;
    T* const to = y + image;
    int64_t r = first;
    if constexpr (sizeof(T) >= 4)
      for (; r + 4 <= last; r += 4) {
        int64_t c = 0;
        for (; c + 4 <= columns; c += 4)
          transpose_items(from + r * columns + c, columns, to + c * rows + r, rows);
        for (; c < columns; ++c)
          for (int64_t i = r; i < r + 4; ++i) to[c * rows + i] = from[i * columns + c];
      }
    if (r == last) return;
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t i = r; i < last; ++i) to[c * rows + i] = from[i * columns + c];
  });
}

// An operation's tensors with the channels first, of S, on copies with the channels last. Null
// stays null.
template <class S>
class Turned {
 public:
  // Copies `first`, [images, channels, pixels].
  Turned(int64_t images, int64_t channels, int64_t pixels, const S* first, Runner& runner)
      : Turned(images, channels, pixels, first != nullptr) {
    if (first != nullptr) transpose_images(images, channels, pixels, first, memory_.get(), runner);
  }
  // Memory for a result.
  Turned(int64_t images, int64_t channels, int64_t pixels, bool wanted)
      : images_(images),
        channels_(channels),
        pixels_(pixels),
        memory_(wanted ? images * channels * pixels : 0) {}
  S* get() const { return memory_.get(); }
  void put_back(S* first, Runner& runner) const {
    if (first != nullptr)
      transpose_images(images_, pixels_, channels_, memory_.get(), first, runner);
  }

 private:
  const int64_t images_, channels_, pixels_;
  const Workspace<S> memory_;
};

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
