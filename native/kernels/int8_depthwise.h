// The depthwise step of int8, channels last: over bands of rows, a block of channels at a time.
//
// Of small kernels, the bytes of up to kTaps rows of a column are put beside each other, channel by
// channel, so that an instruction multiplies as many vertical taps at once; every output that sees
// the column uses them. At stride 1 two rows of outputs share them, too. What lies outside the
// image is read from memory full of the zero point, whose share of a sum is part of the packed
// bias. One tap of few channels is looked up. Other kernels take plain loops.
#pragma once
#include "../quantized_operation.h"
#include "array_tasks.h"
#include "cut.h"
#include "int8_bytes.h"
#include "window.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// The tallest kernel that is computed so, and the most columns that a tile sees.
inline constexpr int64_t kTallest = 8;
inline constexpr int kMostRowPointers = 12, kMostColumns = 15;

// Outputs of a row that a tile has, whose sums and the bytes they are made from fit the registers.
template <int ROWS>
inline constexpr int kTileOutputs = kRegisters == 32 ? (ROWS == 2 ? 3 : 5) : (ROWS == 2 ? 1 : 2);

inline bool is_quick_width(int64_t kw) { return kw == 1 || kw == 3 || kw == 5 || kw == 7; }

// Whether the kernel goes by tiles. What decides is known when weights are packed.
inline bool is_tiled(const QuantizedWeights& w) {
  const bool dilated = w.dh > 1 || w.dw > 1;
  return w.m == 1 && w.c >= 16 && !w.depthwise_large && (!dilated || (w.sh == 1 && w.sw == 1)) &&
         w.kh <= kTallest && is_quick_width(w.kw) && (w.sw == 1 || w.sw == 2);
}

// Rows of outputs of a tile, and groups of kTaps rows of the image that those see.
inline int tile_rows(const QuantizedWeights& w) {
  return w.sh == 1 && w.sw == 1 && w.dh == 1 ? 2 : 1;
}
inline int64_t tap_groups(const QuantizedWeights& w) {
  return ceil_div(w.kh + tile_rows(w) - 1, kTaps);
}

// Weights that a channel has in packed memory: [group][row of outputs][column][tap].
inline int64_t packed_taps(const QuantizedWeights& w) {
  return tap_groups(w) * tile_rows(w) * w.kw * kTaps;
}

// Where a depthwise step finds its packed weights, and how its sums become bytes.
struct DepthwisePack {
  const Int8Weight* weights;  // of tiles; else `kernel`
  const int8_t* kernel;       // or the tables of what is looked up
  const int32_t* bias;        // of tiles in the order of sums, the zero point's share taken off
  const float* scale;         // likewise
  const uint8_t* table;
  Rounding rounding;
};

// Of tiles: block after block, as [group][row][column][channel in the order of sums][tap].
inline void pack_tiled(const QuantizedWeights& w, Int8Weight* weights, int32_t* bias,
                       float* scale) {
  const int64_t groups = tap_groups(w), rows = tile_rows(w);
  for_channel_blocks(w.c, [&](const ChannelBlock& block) {
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t j = 0; j < w.kw; ++j)
          for (int n = 0; n < block.width; ++n) {
            const int64_t c = block.first + channel_of_sum(block.width, n);
            for (int tap = 0; tap < kTaps; ++tap) {
              const int64_t i = group * kTaps + tap - row;
              *weights++ = i < 0 || i >= w.kh
                               ? Int8Weight(0)
                               : Int8Weight(w.depthwise_kernel[(i * w.kw + j) * w.c + c]);
            }
          }
    for (int n = 0; n < block.width; ++n) {
      const int64_t c = block.first + channel_of_sum(block.width, n);
      int32_t total = 0;
      for (int64_t tap = 0; tap < w.kh * w.kw; ++tap) total += w.depthwise_kernel[tap * w.c + c];
      const int32_t own = w.depthwise.bias == nullptr ? 0 : w.depthwise.bias[c];
      *bias++ = packed_bias(own, w.input_zero_point, total);
      *scale++ = w.depthwise.scale[c];
    }
  });
}

// ---- tiles

// What tiles read: kTaps pointers a group of rows, to the block's channels, from `offset` on.
struct TileInput {
  const uint8_t* rows[kMostRowPointers];
  int64_t offset, pixel;  // bytes to the first column, and from one to the next
};

// Puts rows of one column beside each other: four vectors, of the block's channels in the order of
// sums.
template <int W>
[[gnu::always_inline]] inline void interleave_rows(const uint8_t* const* rows, int64_t offset,
                                                   typename Bytes<W>::Int* x) {
  using B = Bytes<W>;
  const auto row = [&](int i) __attribute__((always_inline)) {
    auto bytes = B::get(rows[i] + offset);
    if constexpr (kByteOffset != 0) bytes ^= static_cast<uint8_t>(kByteOffset);
    return bytes;
  };
  const auto a = row(0), b = row(1);
  const auto low = B::low8(a, b), high = B::high8(a, b);
#if defined(SEPCONV_INT8_FOURS)
  const auto c = row(2), d = row(3);
  const auto low2 = B::low8(c, d), high2 = B::high8(c, d);
  x[0] = B::low16(low, low2);
  x[1] = B::high16(low, low2);
  x[2] = B::low16(high, high2);
  x[3] = B::high16(high, high2);
#else
  const typename B::Int none{};
  x[0] = B::low8(low, none);
  x[1] = B::high8(low, none);
  x[2] = B::low8(high, none);
  x[3] = B::high8(high, none);
#endif
}

// `tiles` tiles beside each other, each of ROWS x OUTPUTS outputs of a block, from `groups` groups
// of rows, whose weights are `weights_step` elements apart.
template <int W, int ROWS, int OUTPUTS, int KW, int SW>
[[gnu::noinline]] void depthwise_tiles(const TileInput& in, int64_t tiles, int64_t groups,
                                       const Int8Weight* weights, int64_t weights_step,
                                       const int32_t* bias, const float* scale,
                                       const Rounding& rounding, uint8_t* y, int64_t y_row,
                                       int64_t y_pixel) {
  using B = Bytes<W>;
  constexpr int kVec = W / static_cast<int>(sizeof(Int8Weight));
  const typename B::Limits limits = B::limits(rounding);
  const int64_t pixel = in.pixel;
  int64_t first = in.offset;
  for (; tiles > 0; --tiles, first += OUTPUTS * SW * pixel, y += OUTPUTS * y_pixel) {
    typename B::Int sums[ROWS][OUTPUTS][4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const auto start = B::get(bias + v * W / 4);
#pragma GCC unroll 2
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
        for (int q = 0; q < OUTPUTS; ++q) sums[r][q][v] = start;
    }
    const uint8_t* const* rows = in.rows;
    const Int8Weight* taps = weights;
    for (int64_t group = 0; group < groups; ++group, rows += kTaps, taps += weights_step) {
      int64_t offset = first;
#pragma GCC unroll 24
      for (int column = 0; column < (OUTPUTS - 1) * SW + KW; ++column, offset += pixel) {
        typename B::Int x[4];
        interleave_rows<W>(rows, offset, x);
#pragma GCC unroll 8
        for (int q = 0; q < OUTPUTS; ++q) {
          const int j = column - q * SW;
          if (j < 0 || j >= KW) continue;
#pragma GCC unroll 2
          for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < 4; ++v) {
              sums[r][q][v] =
                  B::dot(sums[r][q][v], x[v], B::get(taps + ((r * KW + j) * 4 + v) * kVec));
              keep_in_register(sums[r][q][v]);
            }
        }
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
      for (int q = 0; q < OUTPUTS; ++q)
        B::finish(sums[r][q], scale, limits, y + r * y_row + q * y_pixel);
  }
}

using TileFunction = void (*)(const TileInput&, int64_t, int64_t, const Int8Weight*, int64_t,
                              const int32_t*, const float*, const Rounding&, uint8_t*, int64_t,
                              int64_t);

// Those of a block's width: of kTileOutputs outputs, and of one.
struct TileFunctions {
  TileFunction many, one;
};
template <int W, int ROWS, int SW>
TileFunctions tile_functions(int64_t kw) {
  constexpr int kMany = kTileOutputs<ROWS>;
  if (kw == 1) return {depthwise_tiles<W, ROWS, kMany, 1, SW>, depthwise_tiles<W, ROWS, 1, 1, SW>};
  if (kw == 3) return {depthwise_tiles<W, ROWS, kMany, 3, SW>, depthwise_tiles<W, ROWS, 1, 3, SW>};
  if (kw == 5) return {depthwise_tiles<W, ROWS, kMany, 5, SW>, depthwise_tiles<W, ROWS, 1, 5, SW>};
  return {depthwise_tiles<W, ROWS, kMany, 7, SW>, depthwise_tiles<W, ROWS, 1, 7, SW>};
}
template <int W>
TileFunctions tile_functions(int rows, int64_t kw, int64_t sw) {
  if (rows == 2) return tile_functions<W, 2, 1>(kw);
  return sw == 1 ? tile_functions<W, 1, 1>(kw) : tile_functions<W, 1, 2>(kw);
}
inline TileFunctions tile_functions(int width, int rows, int64_t kw, int64_t sw) {
#if SEPCONV_VECTOR_BYTES >= 64
  if (width == 64) return tile_functions<64>(rows, kw, sw);
#endif
#if SEPCONV_VECTOR_BYTES >= 32
  if (width == 32) return tile_functions<32>(rows, kw, sw);
#endif
  (void)width;
  return tile_functions<16>(rows, kw, sw);
}

// A band's memory: a row of the zero point, which stands for rows outside the image; and a copy of
// what a tile at an edge sees.
inline int64_t zero_row_bytes(const Geometry& g) {
  return round_up(max_of(g.w, kMostColumns) * g.c, 64);
}
inline int64_t tiled_scratch(const Geometry& g) {
  return zero_row_bytes(g) + kMostRowPointers * kMostColumns * kWidestBlock;
}

// Copies `columns` columns from `left` on, every g.dw-th, of which some are outside the image, of
// the rows at `rows`; `zeros` stands for those outside. `strip` is what tiles read then.
inline TileInput edge_input(const Geometry& g, const TileInput& in, int64_t pointers, int width,
                            int64_t left, int64_t columns, const uint8_t* zeros, uint8_t* strip) {
  TileInput edge;
  edge.offset = 0;
  edge.pixel = width;
  for (int64_t i = 0; i < pointers; ++i) {
    edge.rows[i] = strip;
    for (int64_t column = left; column < left + columns * g.dw; column += g.dw) {
      const uint8_t* from = column >= 0 && column < g.w ? in.rows[i] + column * g.c : zeros;
      for (int at = 0; at < width; at += 16, strip += 16)
        Bytes<16>::put(strip, Bytes<16>::get(from + at));
    }
  }
  return edge;
}

// Rows [p0, p1) of the outputs of an image, to y.
inline void tiled_rows(const Geometry& g, const QuantizedWeights& w, const DepthwisePack& pack,
                       const uint8_t* image, int64_t p0, int64_t p1, uint8_t* y, uint8_t* scratch) {
  const int64_t groups = tap_groups(w), pointers = groups * kTaps, y_row = g.wo * g.c;
  const int packed_rows = tile_rows(w);
  uint8_t* const zeros = scratch;
  uint8_t* const strip = zeros + zero_row_bytes(g);
  __builtin_memset(zeros, w.input_zero_point, static_cast<size_t>(zero_row_bytes(g)));
  for (int64_t p = p0, rows; p < p1; p += rows, y += rows * y_row) {
    rows = min_of(packed_rows, p1 - p);
    const int64_t most = rows == 2 ? kTileOutputs<2> : kTileOutputs<1>;
    const Int8Weight* weights = pack.weights;
    int64_t before = 0;  // channels of the blocks before
    for_channel_blocks(g.c, [&](const ChannelBlock& block) {
      const TileFunctions functions =
          tile_functions(block.width, static_cast<int>(rows), g.kw, g.sw);
      const int64_t step = packed_rows * g.kw * kTaps * block.width;
      TileInput in;
      in.pixel = g.c * g.dw;
      for (int64_t i = 0; i < pointers; ++i) {
        const int64_t h = p * g.sh - g.pt + i * g.dh;  // rows after the kernel's have weights of 0
        in.rows[i] = h >= 0 && h < g.h ? image + h * g.w * g.c + block.first : zeros;
      }
      // Only outputs that are a multiple of the dilation apart share columns; `phase` is the first.
      for (int64_t phase = 0; phase < min_of(g.dw, g.wo); ++phase) {
        const int64_t count = ceil_div(g.wo - phase, g.dw);
        for (int64_t next = 0; next < count;) {
          // Of the last ones some are computed twice, where that is less work than one by one.
          const int64_t outputs = count >= most && 3 * (count - next) > most ? most : 1;
          const int64_t q = min_of(next, count - outputs), columns = (outputs - 1) * g.sw + g.kw;
          const int64_t first = phase + q * g.dw, left = first * g.sw - g.pl;
          const int64_t right = g.w - 1 - left - (columns - 1) * g.dw;
          const bool inside = left >= 0 && right >= 0;
          // As many as are whole and inside.
          const int64_t tiles =
              inside ? 1 + min_of((count - q) / outputs - 1, right / g.dw / (outputs * g.sw)) : 1;
          in.offset = left * g.c;
          const TileInput edge =
              inside ? in : edge_input(g, in, pointers, block.width, left, columns, zeros, strip);
          (outputs == 1 ? functions.one : functions.many)(
              edge, tiles, groups, weights, step, pack.bias + before, pack.scale + before,
              pack.rounding, y + first * g.c + block.first, y_row, g.c * g.dw);
          next = q + outputs * tiles;
        }
      }
      weights += groups * step;
      before += block.width;
    });
  }
}

// ---- plain loops

inline uint8_t rounded_byte(float t, const Rounding& r) {
  const float least = static_cast<float>(r.lower - r.zero_point);
  const float most = static_cast<float>(r.upper - r.zero_point);
  t = t < least ? least : t > most ? most : t;
  t += kRoundingAddend;
  int32_t bits;
  __builtin_memcpy(&bits, &t, sizeof bits);
  return static_cast<uint8_t>(bits - kRoundingBits + r.zero_point);
}

// As tiled_rows(), of any kernel; `sums` has room for an output's channels.
inline void plain_rows(const Geometry& g, const QuantizedWeights& w, const DepthwisePack& pack,
                       const uint8_t* image, int64_t p0, int64_t p1, uint8_t* y, int32_t* sums) {
  const int64_t middle = g.c * g.m;
  for (int64_t p = p0; p < p1; ++p) {
    const int64_t top = p * g.sh - g.pt;
    const Range down = taps_inside(top, g.kh, g.dh, g.h);
    for (int64_t q = 0; q < g.wo; ++q, y += middle) {
      const int64_t left = q * g.sw - g.pl;
      const Range along = taps_inside(left, g.kw, g.dw, g.w);
      for (int64_t c = 0; c < middle; ++c) sums[c] = pack.bias[c];
      for (int64_t i = down.first; i < down.last; ++i)
        for (int64_t j = along.first; j < along.last; ++j) {
          const uint8_t* x = image + ((top + i * g.dh) * g.w + left + j * g.dw) * g.c;
          const int8_t* taps = pack.kernel + (i * g.kw + j) * middle;
          if (g.m == 1) {
            for (int64_t c = 0; c < middle; ++c) sums[c] += (x[c] - w.input_zero_point) * taps[c];
            continue;
          }
          for (int64_t c = 0; c < g.c; ++c)
            for (int64_t m = 0; m < g.m; ++m)
              sums[c * g.m + m] += (x[c] - w.input_zero_point) * taps[c * g.m + m];
        }
      for (int64_t c = 0; c < middle; ++c)
        y[c] = rounded_byte(static_cast<float>(sums[c]) * pack.scale[c], pack.rounding);
    }
  }
}

// ---- one tap of few channels, as of pictures that are scaled: what each byte becomes, looked up

inline bool is_looked_up(const QuantizedWeights& w) {
  return w.kh == 1 && w.kw == 1 && w.m == 1 && w.c < 16;
}

// A table of 256 bytes a channel.
inline void pack_looked_up(const QuantizedWeights& w, uint8_t* tables) {
  const Rounding rounding{w.depthwise.zero_point, w.depthwise.lower, w.depthwise.upper};
  for (int64_t c = 0; c < w.c; ++c)
    for (int32_t x = 0; x < 256; ++x) {
      const int32_t sum = (w.depthwise.bias == nullptr ? 0 : w.depthwise.bias[c]) +
                          (x - w.input_zero_point) * w.depthwise_kernel[c];
      const uint8_t q = rounded_byte(static_cast<float>(sum) * w.depthwise.scale[c], rounding);
      tables[256 * c + x] = w.depthwise.table == nullptr ? q : w.depthwise.table[q];
    }
}

inline void looked_up_rows(const Geometry& g, const QuantizedWeights& w, const uint8_t* tables,
                           const uint8_t* image, int64_t p0, int64_t p1, uint8_t* y) {
  for (int64_t p = p0; p < p1; ++p) {
    const int64_t h = p * g.sh - g.pt;
    for (int64_t q = 0; q < g.wo; ++q, y += g.c) {
      const int64_t at = q * g.sw - g.pl;
      const bool inside = h >= 0 && h < g.h && at >= 0 && at < g.w;
      const uint8_t* x = image + (h * g.w + at) * g.c;
      for (int64_t c = 0; c < g.c; ++c)
        y[c] = tables[256 * c + (inside ? x[c] : w.input_zero_point)];
    }
  }
}

// ---- any of them

inline int64_t depthwise_scratch(const Geometry& g, const QuantizedWeights& w) {
  return is_tiled(w) ? tiled_scratch(g)
                     : round_up(w.middle() * static_cast<int64_t>(sizeof(int32_t)), 64);
}

inline void depthwise_rows(const Geometry& g, const QuantizedWeights& w, const DepthwisePack& pack,
                           const uint8_t* image, int64_t p0, int64_t p1, uint8_t* y,
                           uint8_t* scratch) {
  if (is_looked_up(w)) {
    looked_up_rows(g, w, reinterpret_cast<const uint8_t*>(pack.kernel), image, p0, p1, y);
    return;
  }
  if (is_tiled(w))
    tiled_rows(g, w, pack, image, p0, p1, y, scratch);
  else
    plain_rows(g, w, pack, image, p0, p1, y, reinterpret_cast<int32_t*>(scratch));
  if (pack.table != nullptr) look_up(pack.table, y, (p1 - p0) * g.wo * w.middle(), y);
}

// How its rows are cut into tasks, those of an image.
inline Cut depthwise_bands(const Geometry& g, const QuantizedWeights& w) {
  const int64_t unit = tile_rows(w);
  const int64_t tasks = range_tasks(g.n * ceil_div(g.ho, unit), unit * g.wo * g.c * g.m * g.kh);
  const int64_t each = min_of(ceil_div(tasks, g.n), ceil_div(g.ho, unit));
  return cut_into(g.ho, max_of(1, each), unit);
}

// As a step of a plan, over bands of rows.
inline QuantizedPlan::Step plan_depthwise_bytes(const Geometry& g, const QuantizedWeights& w,
                                                const Cut& bands) {
  using Kernel = QuantizedPlan::Kernel;
  const bool table = is_looked_up(w), small = !table && is_tiled(w);
  const int rows = tile_rows(w), columns = rows == 2 ? kTileOutputs<2> : kTileOutputs<1>;
  return {QuantizedPlan::Kind::depthwise,
          table   ? Kernel::table
          : small ? Kernel::small
                  : Kernel::loops,
          small ? rows : 0,
          small ? columns : 0,
          g.n * bands.count,
          min_of(bands.most, g.ho),
          0};
}

// The depthwise step over whole arrays.
inline void depthwise_bytes(const Geometry& g, const QuantizedWeights& w, const DepthwisePack& pack,
                            const uint8_t* x, uint8_t* y, Runner& runner) {
  const int64_t middle = g.c * g.m, out = g.ho * g.wo * middle;
  const Cut bands = depthwise_bands(g, w);
  parallel<uint8_t>(
      runner, g.n * bands.count, depthwise_scratch(g, w), [&](int64_t task, uint8_t* scratch) {
        const int64_t n = task / bands.count, p0 = bands.first(task % bands.count);
        depthwise_rows(g, w, pack, x + n * g.h * g.w * g.c, p0, bands.first(task % bands.count + 1),
                       y + n * out + p0 * g.wo * middle, scratch);
      });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
