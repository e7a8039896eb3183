// The ordinary convolution: what an output sees of the image, its patch, times the kernel as a
// matrix [tap * channel][filter]. Tiles of patches are copied into cache and feed the product; for
// channels_last a whole row of taps is copied at a time.
//
// Padding is copied as zeros, of which a weight that is infinite or NaN makes NaN: the loops of
// exact.h are of the depthwise step alone.
#pragma once
#include "separable.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Copies `count` values, whole vectors where that reads nothing past `end`. The last vector may
// overwrite what follows the copy.
template <class T>
inline void copy_over(const T* from, int64_t count, const T* end, T* to) {
  if (end - from < round_up(count, kLanes<T>)) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
    return;
  }
  for (int64_t i = 0; i < count; i += kLanes<T>) store(to + i, load(from + i));
}

// Patches as [pixel][tap][channel].
template <class T>
void patches_last(const Geometry& g, const PatchesPlan& plan, const T* x, const Weights<T>& w,
                  const Finish<T>& finish, T* y, Runner& runner) {
  const int64_t depth = w.depth, filters = w.outputs, row = g.kw * g.c;
  const Cut &tiles = plan.product.tiles, &filter_parts = plan.product.filter_parts;
  const WeightParts<T> weights(w, filter_parts);
  const T* end = x + g.n * g.h * g.w * g.c;
  const int64_t pitch = plan.pitch;
  const auto task = [&](int64_t tile, T* scratch, Kept* kept) {
    const int64_t first = tiles.first(tile), count = tiles.first(tile + 1) - first;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t q = (first + k) % g.wo, p = (first + k) / g.wo % g.ho;
      const T* image = x + (first + k) / (g.wo * g.ho) * g.h * g.w * g.c;
      const int64_t top = p * g.sh - g.pt, left = q * g.sw - g.pl;
      const Range inside = taps_inside(left, g.kw, g.dw, g.w);
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
    for (int64_t filter_part = 0; filter_part < filter_parts.count; ++filter_part) {
      const int64_t o0 = filter_parts.first(filter_part), element = first * filters + o0;
      multiply(count, filter_parts.first(filter_part + 1) - o0, depth,
               MatrixA<T>{scratch, pitch, 1}, weights.get(filter_part, kept), y + element, filters,
               finish.at(false, o0, element));
    }
  };
  parallel_keeping<T>(runner, plan.product.tasks, plan.product.scratch, plan.product.kept, task);
}

// Of an image [channel][pixel], what outputs [first, first + count) see: [tap][channel][pixel], in
// panels of pixels as pack() leaves them.
template <class T>
void pack_patches(const Geometry& g, const T* image, int64_t first, int64_t count, T* packed) {
  const int64_t depth = g.kh * g.kw * g.c, panel = panel_elements<T>(depth);
  static_assert(ProductOf<T>::kSteps == 1, "a tap of a channel is a row of a panel");
  if (count % kPanel<T> != 0) fill_zero(packed + count / kPanel<T> * panel, panel);
  for (int64_t k = 0; k < depth; ++k) {
    const int64_t tap = k / g.c, down = tap / g.kw * g.dh - g.pt, right = tap % g.kw * g.dw - g.pl;
    const T* plane = image + k % g.c * g.h * g.w;
    T* to = packed + k * kPanel<T>;
    int64_t p = first / g.wo, q = first % g.wo, lane = 0;
    for (int64_t pixel = 0; pixel < count; ++p, q = 0) {
      const int64_t h = p * g.sh + down;
      const bool inside = h >= 0 && h < g.h;
      for (; q < g.wo && pixel < count; ++q, ++pixel) {
        const int64_t w = q * g.sw + right;
        to[lane] = inside && w >= 0 && w < g.w ? plane[h * g.w + w] : T(0);
        if (++lane == kPanel<T>) {
          lane = 0;
          to += panel;
        }
      }
    }
  }
}

// The same, channels_first: cut as product_first() is.
template <class T>
void patches_first(const Geometry& g, const PatchesPlan& plan, const T* x, const Weights<T>& w,
                   const Finish<T>& finish, T* y, Runner& runner) {
  const WeightRows<T> weights(w);
  const Cut &tiles = plan.product.tiles, &filter_parts = plan.product.filter_parts;
  const int64_t pixels = g.ho * g.wo;
  parallel<T>(runner, plan.product.tasks, plan.product.scratch, [&](int64_t task, T* packed) {
    const int64_t filter_part = task % filter_parts.count,
                  tile = task / filter_parts.count % tiles.count;
    const int64_t n = task / filter_parts.count / tiles.count;
    const int64_t first = tiles.first(tile), count = tiles.first(tile + 1) - first;
    const int64_t o0 = filter_parts.first(filter_part), o1 = filter_parts.first(filter_part + 1);
    pack_patches(g, x + n * g.c * g.h * g.w, first, count, packed);
    const int64_t element = (n * w.outputs + o0) * pixels + first;
    multiply(o1 - o0, count, w.depth, weights.matrix().at(o0, 0), MatrixB<T>{packed}, y + element,
             pixels, finish.at(true, o0, element));
  });
}

template <class T>
void patches_forward(const Geometry& g, const Forward& args, Runner& runner) {
  const T* x = static_cast<const T*>(args.x);
  const Weights<T> weights = forward_weights(static_cast<const T*>(args.pointwise_kernel),
                                             args.depth(g), args.filters, args.packed_kernel);
  const PatchesPlan plan = plan_patches<T>(g, args.filters, args.packed_kernel != nullptr);
  const auto compute = g.channels_first ? &patches_first<T> : &patches_last<T>;
  compute(g, plan, x, weights, finish_of<T>(args), static_cast<T*>(args.y), runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
