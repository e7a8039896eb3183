// An ordinary convolution, in the form in which a separable one can express it: a depthwise kernel
// whose output channel c * kh * kw + tap is the input channel c under that tap, and a pointwise
// kernel with the weights. The depthwise step then only copies, which is done here a whole row of
// taps at a time: tiles of patches, [pixel][tap][channel], feed the product.
#pragma once
#include "separable.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Whether the depthwise kernel has ones where each output channel has its tap, and zeros elsewhere.
template <class T>
bool selects_patches(const Geometry& g, const T* kernel) {
  const int64_t taps = g.kh * g.kw;
  if (g.channels_first || g.m != taps || taps == 1) return false;
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int64_t c = 0; c < g.c; ++c)
      for (int64_t m = 0; m < taps; ++m)
        if (*kernel++ != T(m == tap)) return false;
  return true;
}

// Copies `count` values a vector at a time where that reads nothing past `end`; the vector that
// ends the copy may write over what follows.
template <class T>
inline void copy_over(const T* from, int64_t count, const T* end, T* to) {
  if (end - from < round_up(count, kLanes<T>)) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
    return;
  }
  for (int64_t i = 0; i < count; i += kLanes<T>) store(to + i, load(from + i));
}

template <class T>
void patches_forward(const Geometry& g, const T* x, const T* pointwise_kernel, int64_t filters,
                     const Finish<T>& finish, T* y, Runner& runner) {
  const int64_t taps = g.kh * g.kw, depth = taps * g.c, row = g.kw * g.c;
  // The weights, from [channel][tap] to the order of the patches.
  Workspace<T> ordered(depth * filters);
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int64_t c = 0; c < g.c; ++c)
      for (int64_t f = 0; f < filters; ++f)
        ordered.get()[(tap * g.c + c) * filters + f] =
            pointwise_kernel[(c * taps + tap) * filters + f];
  const PatchesPlan plan = plan_patches<T>(g, filters);
  const Cut &tiles = plan.tiles, &blocks = plan.blocks;
  const WeightBlocks<T> weights(forward_weights<T>(ordered.get(), depth, filters), blocks);
  const T* end = x + g.n * g.h * g.w * g.c;
  const int64_t pitch = plan.pitch;
  const auto task = [&](int64_t tile, T* scratch, Kept* kept) {
    const int64_t first = tiles.first(tile), count = tiles.first(tile + 1) - first;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t q = (first + k) % g.wo, p = (first + k) / g.wo % g.ho;
      const T* image = x + (first + k) / (g.wo * g.ho) * g.h * g.w * g.c;
      const int64_t top = p * g.sh - g.pt, left = q * g.sw - g.pl;
      const TapRange inside = taps_inside(left, g.kw, g.dw, g.w);
      T* to = scratch + k * pitch;
      for (int64_t i = 0; i < g.kh; ++i, to += row) {
        const int64_t h = top + i * g.dh;
        if (h < 0 || h >= g.h || inside.first == inside.last) {
          fill_zero(to, row);
          continue;
        }
        const T* from = image + (h * g.w + left) * g.c;
        fill_zero(to, inside.first * g.c);
        if (g.dw == 1)
          copy_over(from + inside.first * g.c, (inside.last - inside.first) * g.c, end,
                    to + inside.first * g.c);
        else
          for (int64_t j = inside.first; j < inside.last; ++j)
            copy_over(from + j * g.dw * g.c, g.c, end, to + j * g.c);
        fill_zero(to + inside.last * g.c, (g.kw - inside.last) * g.c);
      }
    }
    for (int64_t block = 0; block < blocks.count; ++block) {
      const int64_t o0 = blocks.first(block), element = first * filters + o0;
      multiply(count, blocks.first(block + 1) - o0, depth, MatrixA<T>{scratch, pitch, 1},
               weights.get(block, kept), y + element, filters, finish.at(false, o0, element));
    }
  };
  parallel_keeping<T>(runner, tiles.count, plan.scratch, plan.kept, task);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
