// The ordinary convolution: what an output sees of the image, its patch, times the kernel as a
// matrix [tap * channel][filter]. Tiles of patches are copied into cache and feed the product; for
// channels_last a whole row of taps is copied at a time.
//
// Padding is copied as zeros, of which a weight that is infinite or NaN makes NaN: the loops of
// exact.h are of the depthwise step alone.
#pragma once
#include "separable.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// A vector of what is multiplied, from as many elements of a tensor.
template <class M, class S>
inline Vec<M> load_as(const S* from) {
  if constexpr (kSame<M, S>)
    return load(from);
  else
    return load_real(from);
}

// Copies `count` values, whole vectors where that reads nothing past `end`. The last vector may
// overwrite what follows the copy.
template <class S, class M>
inline void copy_over(const S* from, int64_t count, const S* end, M* to) {
  if (end - from < round_up(count, kLanes<M>)) {
    for (int64_t i = 0; i < count; ++i) to[i] = converted_to<M>(from[i]);
    return;
  }
  for (int64_t i = 0; i < count; i += kLanes<M>) store(to + i, load_as<M>(from + i));
}

// A patch as [tap][channel]: what the output at row p and column q of an image sees.
template <class S, class M>
void copy_patch(const Geometry& g, const S* image, int64_t p, int64_t q, const S* end, M* to) {
  const int64_t row = g.kw * g.c, top = p * g.sh - g.pt, left = q * g.sw - g.pl;
  const Range inside = taps_inside(left, g.kw, g.dw, g.w);
  for (int64_t i = 0; i < g.kh; ++i, to += row) {
    const int64_t h = top + i * g.dh;
    if (h < 0 || h >= g.h || inside.first == inside.last) {
      fill_zero(to, row);
      continue;
    }
    const S* from = image + (h * g.w + left) * g.c;
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

// Patches of outputs [q0, q1) of row p, `pitch` from one to the next. Those between the edges,
// whose taps are all inside the image along the row, are whole vectors of each of its rows.
template <class S, class M>
void copy_patches(const Geometry& g, const S* image, int64_t p, int64_t q0, int64_t q1,
                  int64_t pitch, const S* end, M* to) {
  const int64_t row = g.kw * g.c, top = p * g.sh - g.pt;
  int64_t first = q1, last = q1;
  if (g.dw == 1 && g.w >= g.kw) {
    first = max_of(q0, min_of(q1, ceil_div(g.pl, g.sw)));
    last = max_of(first, min_of(q1, (g.w - g.kw + g.pl) / g.sw + 1));
    // Vectors may read past a row, but not past the array.
    const int64_t lowest = min_of(g.h - 1, top + (g.kh - 1) * g.dh);
    const auto reads_past = [&](int64_t q) {
      const S* from = image + (lowest * g.w + q * g.sw - g.pl) * g.c;
      return end - from < round_up(row, kLanes<M>);
    };
    while (last > first && reads_past(last - 1)) --last;
  }
  for (int64_t q = q0; q < first; ++q, to += pitch) copy_patch(g, image, p, q, end, to);
  if (last > first) {
    M* tap_row = to;
    for (int64_t i = 0; i < g.kh; ++i, tap_row += row) {
      const int64_t h = top + i * g.dh;
      M* here = tap_row;
      if (h < 0 || h >= g.h) {
        for (int64_t q = first; q < last; ++q, here += pitch)
          for (int64_t k = 0; k < row; k += kLanes<M>) store(here + k, zero<M>());
        continue;
      }
      const S* from = image + (h * g.w + first * g.sw - g.pl) * g.c;
      for (int64_t q = first; q < last; ++q, here += pitch, from += g.sw * g.c)
        for (int64_t k = 0; k < row; k += kLanes<M>) store(here + k, load_as<M>(from + k));
    }
    to += (last - first) * pitch;
  }
  for (int64_t q = last; q < q1; ++q, to += pitch) copy_patch(g, image, p, q, end, to);
}

// Patches as [pixel][tap][channel]. Tensors are of S, patches of what they are multiplied as.
template <class S>
void patches_last(const Geometry& g, const PatchesPlan& plan, const S* x, const Weights<S>& w,
                  const Finish<S>& finish, S* y, Runner& runner) {
  using M = Multiplied<S>;
  const int64_t depth = w.depth, filters = w.outputs;
  const Cut &tiles = plan.product.tiles, &filter_parts = plan.product.filter_parts;
  const WeightParts<S> weights(w, filter_parts);
  const S* end = x + g.n * g.h * g.w * g.c;
  const int64_t pitch = plan.pitch;
  const auto task = [&](int64_t tile, M* scratch, Kept* kept) {
    const int64_t first = tiles.first(tile), count = tiles.first(tile + 1) - first;
    for (int64_t k = 0; k < count;) {
      const int64_t row = (first + k) / g.wo, q = (first + k) % g.wo;
      const int64_t here = min_of(g.wo - q, count - k);
      copy_patches(g, x + row / g.ho * g.h * g.w * g.c, row % g.ho, q, q + here, pitch, end,
                   scratch + k * pitch);
      k += here;
    }
    for (int64_t filter_part = 0; filter_part < filter_parts.count; ++filter_part) {
      const int64_t o0 = filter_parts.first(filter_part), element = first * filters + o0;
      multiply<false, M, ProductInto<M, S>>(
          count, filter_parts.first(filter_part + 1) - o0, depth, MatrixA<M>{scratch, pitch, 1},
          weights.get(filter_part, kept), y + element, filters, finish.at(false, o0, element));
    }
  };
  parallel_keeping<M>(runner, plan.product.tasks, plan.product.scratch, plan.product.kept, task);
}

// Of an image [channel][pixel], what outputs [first, first + count) see: [tap][channel][pixel], in
// panels of pixels as pack() leaves them.
template <class S, class M>
void pack_patches(const Geometry& g, const S* image, int64_t first, int64_t count, M* packed) {
  constexpr int64_t kSteps = ProductOf<M>::kSteps, kRow = kPanel<M> * kSteps;
  const int64_t depth = g.kh * g.kw * g.c, panel = panel_elements<M>(depth);
  if (count % kPanel<M> != 0) fill_zero(packed + count / kPanel<M> * panel, panel);
  if (depth % kSteps != 0)  // what fills up the last step
    for (int64_t last = 1; last <= panels<M>(count); ++last)
      fill_zero(packed + last * panel - kRow, kRow);
  for (int64_t k = 0; k < depth; ++k) {
    const int64_t tap = k / g.c, down = tap / g.kw * g.dh - g.pt, right = tap % g.kw * g.dw - g.pl;
    const S* plane = image + k % g.c * g.h * g.w;
    M* to = packed + k / kSteps * kRow + k % kSteps;
    int64_t p = first / g.wo, q = first % g.wo, lane = 0;
    for (int64_t pixel = 0; pixel < count; ++p, q = 0) {
      const int64_t h = p * g.sh + down;
      const bool inside = h >= 0 && h < g.h;
      for (; q < g.wo && pixel < count; ++q, ++pixel) {
        const int64_t w = q * g.sw + right;
        to[lane * kSteps] = inside && w >= 0 && w < g.w ? converted_to<M>(plane[h * g.w + w]) : M{};
        if (++lane == kPanel<M>) {
          lane = 0;
          to += panel;
        }
      }
    }
  }
}

// The same, channels_first: cut as product_first() is.
template <class S>
void patches_first(const Geometry& g, const PatchesPlan& plan, const S* x, const Weights<S>& w,
                   const Finish<S>& finish, S* y, Runner& runner) {
  using M = Multiplied<S>;
  const WeightRows<S> weights(w);
  const Cut &tiles = plan.product.tiles, &filter_parts = plan.product.filter_parts;
  const int64_t pixels = g.ho * g.wo;
  parallel<M>(runner, plan.product.tasks, plan.product.scratch, [&](int64_t task, M* packed) {
    const int64_t filter_part = task % filter_parts.count,
                  tile = task / filter_parts.count % tiles.count;
    const int64_t n = task / filter_parts.count / tiles.count;
    const int64_t first = tiles.first(tile), count = tiles.first(tile + 1) - first;
    const int64_t o0 = filter_parts.first(filter_part), o1 = filter_parts.first(filter_part + 1);
    pack_patches(g, x + n * g.c * g.h * g.w, first, count, packed);
    const int64_t element = (n * w.outputs + o0) * pixels + first;
    multiply<false, M, ProductInto<M, S>>(o1 - o0, count, w.depth, weights.matrix().at(o0, 0),
                                          MatrixB<M>{packed}, y + element, pixels,
                                          finish.at(true, o0, element));
  });
}

template <class S>
void patches_forward(const Geometry& g, const Forward& args, Runner& runner) {
  const S* x = static_cast<const S*>(args.x);
  const Weights<S> weights = forward_weights(static_cast<const S*>(args.pointwise_kernel),
                                             args.depth(g), args.filters, args.packed_kernel);
  const PatchesPlan plan = plan_patches<S>(g, args.filters, args.packed_kernel != nullptr);
  const auto compute = g.channels_first ? &patches_first<S> : &patches_last<S>;
  compute(g, plan, x, weights, finish_of<S>(args), static_cast<S*>(args.y), runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
