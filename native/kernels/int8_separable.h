// Whole int8 convolutions: depthwise tiles that feed the product while they are in a cache,
// ordinary convolutions by patches, and how weights lie in packed memory.
//
// Arrays whose channels are second go through copies whose channels are last.
#pragma once
#include "int8_depthwise.h"
#include "int8_product.h"
#include "turned.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// ---- packed memory

// Where each part begins, in bytes.
struct Int8Layout {
  int64_t depthwise = 0, depthwise_bias = 0, depthwise_scale = 0, depthwise_table = 0;
  int64_t product = 0, bias = 0, scale = 0, table = 0, bytes = 0;

  explicit Int8Layout(const QuantizedWeights& w) {
    constexpr int64_t kWeight = sizeof(Int8Weight), kNumber = 4, kTable = 256;
    if (w.is_depthwise()) {
      const bool tiled = is_tiled(w);
      const int64_t channels = tiled ? block_channels(w.c) : w.middle();
      depthwise = add(tiled             ? packed_taps(w) * channels * kWeight
                      : is_looked_up(w) ? kTable * w.c
                                        : w.kh * w.kw * channels);
      depthwise_bias = add(channels * kNumber);
      depthwise_scale = add(channels * kNumber);
      depthwise_table = add(kTable);
    }
    if (w.mixes()) {
      const int64_t columns = packed_columns(w.filters);
      product = add(round_up(w.depth(), kTaps) * columns * kWeight);
      bias = add(columns * kNumber);
      scale = add(columns * kNumber);
      table = add(kTable);
    }
  }

 private:
  int64_t add(int64_t size) {
    const int64_t first = bytes;
    bytes += round_up(size, 64);
    return first;
  }
};

// The part that begins at byte `first` of packed memory.
template <class T>
T* packed_part(void* packed, int64_t first) {
  return static_cast<T*>(static_cast<void*>(static_cast<char*>(packed) + first));
}
template <class T>
const T* packed_part(const void* packed, int64_t first) {
  return static_cast<const T*>(static_cast<const void*>(static_cast<const char*>(packed) + first));
}
// The same of a step's table; null where the step has none.
inline const uint8_t* packed_table(const Requantize& step, const void* packed, int64_t first) {
  return step.table == nullptr ? nullptr : packed_part<uint8_t>(packed, first);
}

inline int64_t packed_int8_bytes(const QuantizedWeights& w) { return Int8Layout(w).bytes; }

inline void copy_table(const uint8_t* table, void* to) {
  if (table != nullptr) __builtin_memcpy(to, table, 256);
}

inline void pack_int8(const QuantizedWeights& w, void* packed) {
  const Int8Layout layout(w);
  if (w.is_depthwise()) {
    int32_t* const bias = packed_part<int32_t>(packed, layout.depthwise_bias);
    float* const scale = packed_part<float>(packed, layout.depthwise_scale);
    copy_table(w.depthwise.table, packed_part<uint8_t>(packed, layout.depthwise_table));
    if (is_tiled(w)) {
      pack_tiled(w, packed_part<Int8Weight>(packed, layout.depthwise), bias, scale);
    } else if (is_looked_up(w)) {
      pack_looked_up(w, packed_part<uint8_t>(packed, layout.depthwise));
    } else {
      __builtin_memcpy(packed_part<int8_t>(packed, layout.depthwise), w.depthwise_kernel,
                       static_cast<size_t>(w.kh * w.kw * w.middle()));
      for (int64_t c = 0; c < w.middle(); ++c) {
        bias[c] = w.depthwise.bias == nullptr ? 0 : w.depthwise.bias[c];
        scale[c] = w.depthwise.scale[c];
      }
    }
  }
  if (w.mixes()) {
    copy_table(w.output.table, packed_part<uint8_t>(packed, layout.table));
    pack_product(w, w.is_depthwise() ? w.depthwise.zero_point : w.input_zero_point,
                 packed_part<Int8Weight>(packed, layout.product),
                 packed_part<int32_t>(packed, layout.bias),
                 packed_part<float>(packed, layout.scale));
  }
}

inline DepthwisePack depthwise_pack(const QuantizedWeights& w, const void* packed) {
  const Int8Layout layout(w);
  return {packed_part<Int8Weight>(packed, layout.depthwise),
          packed_part<int8_t>(packed, layout.depthwise),
          packed_part<int32_t>(packed, layout.depthwise_bias),
          packed_part<float>(packed, layout.depthwise_scale),
          packed_table(w.depthwise, packed, layout.depthwise_table),
          {w.depthwise.zero_point, w.depthwise.lower, w.depthwise.upper}};
}

inline ProductPack product_pack(const QuantizedWeights& w, const void* packed) {
  const Int8Layout layout(w);
  return {packed_part<Int8Weight>(packed, layout.product),
          packed_part<int32_t>(packed, layout.bias), packed_part<float>(packed, layout.scale),
          packed_table(w.output, packed, layout.table)};
}

// ---- both steps

// How rows of outputs are cut into tasks where the depthwise step feeds the product, those of an
// image; and whether there are enough of them, or one step goes after the other.
struct SeparableCut {
  Cut bands;
  bool fused;
};
inline SeparableCut cut_separable(const Geometry& g, const QuantizedWeights& w, int64_t threads) {
  const int64_t unit = tile_rows(w);
  const int64_t wanted = max_of(unit, tuning::kTilePixels / g.wo / unit * unit);
  int64_t count = ceil_div(g.ho, wanted);
  if (g.n * count < 4 * threads) count = ceil_div(round_up(g.n * count, threads), g.n);
  // Bands of single rows where there are few rows.
  const Cut bands = cut_into(g.ho, min_of(count, g.ho), count > ceil_div(g.ho, unit) ? 1 : unit);
  return {bands, g.n * bands.count >= threads || g.n * g.ho * g.wo <= 1};
}

// A band of the depthwise result at a time, which stays in a cache for the product; where there are
// fewer bands than threads, one step after the other.
template <class Y>
void separable_bytes(const Geometry& g, const QuantizedWeights& w, const QuantizedForward<Y>& args,
                     Runner& runner) {
  const int64_t middle = w.middle(), pixels = g.ho * g.wo, threads = runner.concurrency();
  const DepthwisePack depthwise = depthwise_pack(w, args.packed);
  const ProductPack product = product_pack(w, args.packed);
  const SeparableCut cut = cut_separable(g, w, threads);
  const Cut& bands = cut.bands;
  if (!cut.fused) {
    Workspace<uint8_t> between(g.n * pixels * middle);
    depthwise_bytes(g, w, depthwise, args.x, between.get(), runner);
    product_bytes(w, product, g.n * pixels, between.get(), args.residual, args.y, runner);
    return;
  }
  const int64_t most = bands.most * g.wo, tile = round_up(most * middle, 64);
  const int64_t rest = max_of(depthwise_scratch(g, w), copied_bytes(most, middle));
  parallel<uint8_t>(runner, g.n * bands.count, tile + rest, [&](int64_t task, uint8_t* scratch) {
    const int64_t n = task / bands.count, p0 = bands.first(task % bands.count);
    const int64_t p1 = bands.first(task % bands.count + 1);
    depthwise_rows(g, w, depthwise, args.x + n * g.h * g.w * g.c, p0, p1, scratch, scratch + tile);
    const int64_t first = (n * pixels + p0 * g.wo) * w.filters;
    product_rows(w, product, scratch, middle, (p1 - p0) * g.wo, 0, w.filters, args.y + first,
                 args.residual == nullptr ? nullptr : args.residual + first, scratch + tile);
  });
}

// ---- ordinary convolutions

inline void copy_bytes(const uint8_t* from, int64_t count, uint8_t* to) {
  if (count >= 16) {
    for (int64_t i = 0; i + 16 <= count; i += 16) Bytes<16>::put(to + i, Bytes<16>::get(from + i));
    Bytes<16>::put(to + count - 16, Bytes<16>::get(from + count - 16));
  } else if (count >= 8) {
    __builtin_memcpy(to, from, 8);
    __builtin_memcpy(to + count - 8, from + count - 8, 8);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

// What the output at row p and column q of an image sees, as [tap][channel].
inline void copy_patch_bytes(const Geometry& g, const uint8_t* image, int64_t p, int64_t q,
                             int zero_point, uint8_t* to) {
  const int64_t row = g.kw * g.c, top = p * g.sh - g.pt, left = q * g.sw - g.pl;
  const Range inside = taps_inside(left, g.kw, g.dw, g.w);
  const auto pad = [&](int64_t first, int64_t last) {
    if (first != last) __builtin_memset(to + first, zero_point, static_cast<size_t>(last - first));
  };
  for (int64_t i = 0; i < g.kh; ++i, to += row) {
    const int64_t h = top + i * g.dh;
    if (h < 0 || h >= g.h || inside.first == inside.last) {
      pad(0, row);
      continue;
    }
    const uint8_t* const from = image + (h * g.w + left) * g.c;
    pad(0, inside.first * g.c);
    if (g.dw == 1)
      copy_bytes(from + inside.first * g.c, (inside.last - inside.first) * g.c,
                 to + inside.first * g.c);
    else
      for (int64_t j = inside.first; j < inside.last; ++j)
        copy_bytes(from + j * g.dw * g.c, g.c, to + j * g.c);
    pad(inside.last * g.c, row);
  }
}

// From a patch to the next: its last row of taps is copied as whole pieces of 16 bytes.
inline int64_t patch_pitch(const Geometry& g) {
  const int64_t row = g.kw * g.c;
  return round_up((g.kh - 1) * row + round_up(row, 16), 16);
}

// Patches of outputs [q0, q1) of row p. Those whose taps are all inside the image along the row are
// pieces of 16 bytes of each of its rows, which may overwrite the row of taps that comes after;
// pieces end before `end`, the image's.
inline void copy_patches_bytes(const Geometry& g, const uint8_t* image, const uint8_t* end,
                               int64_t p, int64_t q0, int64_t q1, int zero_point, uint8_t* to) {
  const int64_t row = g.kw * g.c, pitch = patch_pitch(g), top = p * g.sh - g.pt;
  int64_t first = q1, last = q1;
  if (g.dw == 1 && g.w >= g.kw) {
    first = max_of(q0, min_of(q1, ceil_div(g.pl, g.sw)));
    last = max_of(first, min_of(q1, (g.w - g.kw + g.pl) / g.sw + 1));
    const int64_t lowest = min_of(g.h - 1, top + (g.kh - 1) * g.dh);
    const auto reads_past = [&](int64_t q) {
      return end - (image + (lowest * g.w + q * g.sw - g.pl) * g.c) < round_up(row, 16);
    };
    while (last > first && reads_past(last - 1)) --last;
  }
  const auto each = [&](int64_t from, int64_t before) {
    for (int64_t q = from; q < before; ++q)
      copy_patch_bytes(g, image, p, q, zero_point, to + (q - q0) * pitch);
  };
  each(q0, first);
  each(last, q1);
  uint8_t* tap_row = to + (first - q0) * pitch;
  for (int64_t i = 0; i < g.kh; ++i, tap_row += row) {
    const int64_t h = top + i * g.dh;
    uint8_t* here = tap_row;
    if (h < 0 || h >= g.h) {
      for (int64_t q = first; q < last; ++q, here += pitch)
        __builtin_memset(here, zero_point, static_cast<size_t>(row));
      continue;
    }
    const uint8_t* from = image + (h * g.w + first * g.sw - g.pl) * g.c;
    for (int64_t q = first; q < last; ++q, here += pitch, from += g.sw * g.c)
      for (int64_t k = 0; k < row; k += 16) Bytes<16>::put(here + k, Bytes<16>::get(from + k));
  }
}

// Whether it is the product of each pixel's channels with a matrix.
inline bool is_product(const Geometry& g) {
  return g.kh == 1 && g.kw == 1 && g.sh == 1 && g.sw == 1 && g.h == g.ho && g.w == g.wo &&
         g.pt == 0 && g.pl == 0;
}

template <class Y>
void ordinary_bytes(const Geometry& g, const QuantizedWeights& w, const QuantizedForward<Y>& args,
                    Runner& runner) {
  const ProductPack product = product_pack(w, args.packed);
  const int64_t pixels = g.ho * g.wo, rows = g.n * pixels, depth = w.depth();
  if (is_product(g)) {
    product_bytes(w, product, rows, args.x, args.residual, args.y, runner);
    return;
  }
  const ProductCut cut = cut_product(rows, depth, w.filters, runner.concurrency());
  const int64_t pitch = patch_pitch(g), patches = round_up(cut.tiles.most * pitch, 64);
  parallel<uint8_t>(
      runner, cut.tasks(), patches + copied_bytes(cut.tiles.most, depth),
      [&](int64_t task, uint8_t* scratch) {
        const int64_t part = task % cut.filter_parts.count, tile = task / cut.filter_parts.count;
        const int64_t first = cut.tiles.first(tile), end = cut.tiles.first(tile + 1);
        for (int64_t pixel = first, here; pixel < end; pixel += here) {
          const int64_t q = pixel % g.wo;
          const uint8_t* const image = args.x + pixel / pixels * g.h * g.w * g.c;
          here = min_of(g.wo - q, end - pixel);
          copy_patches_bytes(g, image, image + g.h * g.w * g.c, pixel % pixels / g.wo, q, q + here,
                             w.input_zero_point, scratch + (pixel - first) * pitch);
        }
        product_rows(w, product, scratch, pitch, end - first, cut.filter_parts.first(part),
                     cut.filter_parts.first(part + 1), args.y + first * w.filters,
                     args.residual == nullptr ? nullptr : args.residual + first * w.filters,
                     scratch + patches);
      });
}

// ---- any of them

template <class Y>
void forward_channels_last(const Geometry& g, const QuantizedWeights& w,
                           const QuantizedForward<Y>& args, Runner& runner) {
  if (!w.is_depthwise())
    ordinary_bytes(g, w, args, runner);
  else if (w.mixes())
    separable_bytes(g, w, args, runner);
  else if constexpr (kSame<Y, uint8_t>)
    depthwise_bytes(g, w, depthwise_pack(w, args.packed), args.x, args.y, runner);
}

// How forward_int8() goes.
inline QuantizedPlan plan_int8(const Geometry& g, const QuantizedWeights& w, int threads) {
  using Kind = QuantizedPlan::Kind;
  const int64_t pixels = g.n * g.ho * g.wo;
  const auto product = [&](Kind kind) -> QuantizedPlan::Step {
    const ProductCut cut = cut_product(pixels, w.depth(), w.filters, threads);
    return {kind,
            QuantizedPlan::Kernel::none,
            0,
            0,
            cut.tasks(),
            min_of(cut.tiles.most, pixels),
            min_of(cut.filter_parts.most, w.filters)};
  };
  if (!w.is_depthwise()) return {{product(is_product(g) ? Kind::product : Kind::patches)}, 1};
  if (!w.mixes()) return {{plan_depthwise_bytes(g, w, depthwise_bands(g, w))}, 1};
  const SeparableCut cut = cut_separable(g, w, threads);
  if (!cut.fused)
    return {{plan_depthwise_bytes(g, w, depthwise_bands(g, w)), product(Kind::product)}, 2};
  QuantizedPlan::Step step = plan_depthwise_bytes(g, w, cut.bands);
  step.kind = Kind::tiles;
  step.filters = w.filters;
  return {{step}, 1};
}

template <class Y>
void forward_int8(const Geometry& g, const QuantizedWeights& w, const QuantizedForward<Y>& args,
                  Runner& runner) {
  if (!g.channels_first) {
    forward_channels_last(g, w, args, runner);
    return;
  }
  const int64_t in = g.h * g.w, out = g.ho * g.wo, outputs = w.outputs();
  const Workspace<uint8_t> x(g.n * in * g.c);
  const Workspace<Y> y(g.n * out * outputs);
  const Workspace<uint8_t> residual(args.residual == nullptr ? 0 : g.n * out * outputs);
  transpose_images(g.n, g.c, in, args.x, x.get(), runner);
  if (args.residual != nullptr)
    transpose_images(g.n, outputs, out, args.residual, residual.get(), runner);
  Geometry last = g;
  last.channels_first = false;
  forward_channels_last<Y>(last, w, {args.packed, x.get(), residual.get(), y.get()}, runner);
  transpose_images(g.n, out, outputs, y.get(), args.y, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
