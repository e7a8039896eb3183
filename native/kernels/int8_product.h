// The product of int8: rows of bytes times weights, by the driver of every product (gemm.h).
//
// Where an instruction takes bytes as they are (VNNI, USDOT), they are multiplied in place, four
// steps of k at a time. Else rows are copied first: made signed for SDOT, or widened to 16 bits and
// multiplied in pairs. What the zero point and the sign make of a sum is part of the packed bias.
#pragma once
#include <type_traits>

#include "../quantized_operation.h"
#include "cut.h"
#include "gemm.h"
#include "int8_lanes.h"
#include "parallel.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// What a product finds in packed memory.
struct ProductPack {
  const Int8Weight* weights;
  const int32_t* bias;  // the zero point's share taken off
  const float* scale;
  const uint8_t* table;
};

// Sums with their bias, times their scale. Vectors of a number a column are as long as packed
// weights are wide.
struct ScaledSums {
  const int32_t* bias;
  const float* scale;

  // Unsigned, since the zero point's share may leave int32 until all is added up.
  [[gnu::always_inline]] Vec<float> scaled(Vec<int32_t> sums, int64_t n) const {
    const Vec<uint32_t> all =
        reinterpret_cast<Vec<uint32_t>>(sums) + reinterpret_cast<Vec<uint32_t>>(load(bias + n));
    return __builtin_convertvector(reinterpret_cast<Vec<int32_t>>(all), Vec<float>) *
           load(scale + n);
  }
};

// What follows the sums of a product; see Requantize.
struct QuantizedEpilogue : ScaledSums {
  const uint8_t* residual;  // of C's rows; null: none
  float least, most;        // of rounded sums
  int32_t offset;           // from the bits of a rounded sum to its byte
  int32_t residual_zero_point;
  float residual_scale;

  QuantizedEpilogue(const ProductPack& pack, const QuantizedWeights& w, int64_t n0,
                    const uint8_t* added)
      : ScaledSums{pack.bias + n0, pack.scale + n0},
        residual(added == nullptr ? nullptr : added + n0),
        least(static_cast<float>(w.output.lower - w.output.zero_point)),
        most(static_cast<float>(w.output.upper - w.output.zero_point)),
        offset(kRoundingBits - w.output.zero_point),
        residual_zero_point(w.residual_zero_point),
        residual_scale(w.residual_scale) {}

  using Column = QuantizedEpilogue;
  bool is_columns() const { return residual == nullptr; }
  Column column(int64_t n) const { return from(0, n, 0); }

  bool buffered() const { return false; }
  bool late() const { return false; }
  void move(int64_t m, int64_t n, int64_t c_row) {
    bias += n;
    scale += n;
    if (residual != nullptr) residual += m * c_row + n;
  }
  QuantizedEpilogue from(int64_t m, int64_t n, int64_t c_row) const {
    QuantizedEpilogue e = *this;
    e.move(m, n, c_row);
    return e;
  }

  // `added`: the residual's bytes, as int32.
  [[gnu::always_inline]] Vec<int32_t> rounded(Vec<int32_t> sums, int64_t n,
                                              const Vec<int32_t>* added) const {
    Vec<float> t = scaled(sums, n);
    if (added != nullptr)
      t += __builtin_convertvector(*added - residual_zero_point, Vec<float>) * residual_scale;
    return rounded_lanes(t, broadcast(least), broadcast(most), offset);
  }

  template <int WHOLE, int ROWS, int VECTORS, class Rows>
  [[gnu::always_inline]] void put(const Vec<int32_t> (&sums)[ROWS][VECTORS], int64_t c_row,
                                  const Rows& out) const {
    constexpr int kVec = kLanes<int32_t>;
    int done = 0;
#if defined(SEPCONV_INT8_X86)
    if constexpr (WHOLE == 2) {
#pragma GCC unroll 8
      for (; done + 2 <= ROWS; done += 2) put_two(sums[done], sums[done + 1], done, c_row, out);
    }
#endif
#pragma GCC unroll 16
    for (int i = done; i < ROWS; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < WHOLE; ++v) {
        uint8_t* const to = out.row(i) + v * kVec;
        if (residual == nullptr) {
          store_bytes(to, rounded(sums[i][v], v * kVec, nullptr));
          continue;
        }
        const Vec<int32_t> added = byte_lanes(residual + i * c_row + v * kVec);
        store_bytes(to, rounded(sums[i][v], v * kVec, &added));
      }
  }

#if defined(SEPCONV_INT8_X86)
  // Two rows of two vectors each, row i and the next. Packing clamps, of four vectors at a time.
  template <int VECTORS, class Rows>
  [[gnu::always_inline]] void put_two(const Vec<int32_t> (&a)[VECTORS],
                                      const Vec<int32_t> (&b)[VECTORS], int i, int64_t c_row,
                                      const Rows& out) const {
    using B = Bytes<SEPCONV_VECTOR_BYTES>;
    constexpr int kVec = kLanes<int32_t>;
    const auto whole_sum = [&](Vec<int32_t> sum, int row, int v) __attribute__((always_inline)) {
      Vec<float> t = scaled(sum, v * kVec);
      if (residual != nullptr) {
        const Vec<int32_t> added = byte_lanes(residual + row * c_row + v * kVec);
        t += __builtin_convertvector(added - residual_zero_point, Vec<float>) * residual_scale;
      }
      // Beyond int32 the conversion gives its least number, which is right below alone.
      return whole(lesser(t, broadcast(0x1p30f)));
    };
    const int32_t zero_point = kRoundingBits - offset;
    const auto limit = [&](float t) { return static_cast<int32_t>(t) + zero_point; };
    const auto limits = B::limits({zero_point, limit(least), limit(most)});
    // Each 16 bytes have four columns of a row's first vector, of its second, and of the next row.
    const auto q = B::bytes(whole_sum(a[0], i, 0), whole_sum(a[1], i, 1), whole_sum(b[0], i + 1, 0),
                            whole_sum(b[1], i + 1, 1), limits);
    store_halves(vectors_of_bytes(q), out.row(i), out.row(i + 1));
  }
#endif

  [[gnu::noinline]] void put_partial(int rows, int64_t columns, const int32_t* sums, int sums_row,
                                     uint8_t* c, int64_t c_row) const {
    for (int64_t n = 0; n < columns; n += kLanes<int32_t>) {
      const int64_t count = min_of(kLanes<int32_t>, columns - n);
      for (int i = 0; i < rows; ++i) {
        const Vec<int32_t> row = load(sums + i * sums_row + n);
        if (residual == nullptr) {
          store_first_bytes(c + i * c_row + n, rounded(row, n, nullptr), count);
          continue;
        }
        const Vec<int32_t> added = load_first_bytes(residual + i * c_row + n, count);
        store_first_bytes(c + i * c_row + n, rounded(row, n, &added), count);
      }
    }
  }

  void finish_late(int64_t, int64_t, uint8_t*, int64_t) const {}
};

// The same where the results are float32: nothing follows.
struct ScaledEpilogue : ScaledSums {
  ScaledEpilogue(const ProductPack& pack, const QuantizedWeights&, int64_t n0, const uint8_t*)
      : ScaledSums{pack.bias + n0, pack.scale + n0} {}

  using Column = ScaledEpilogue;
  bool is_columns() const { return true; }
  Column column(int64_t n) const { return from(0, n, 0); }

  bool buffered() const { return false; }
  bool late() const { return false; }
  void move(int64_t, int64_t n, int64_t) {
    bias += n;
    scale += n;
  }
  ScaledEpilogue from(int64_t m, int64_t n, int64_t c_row) const {
    ScaledEpilogue e = *this;
    e.move(m, n, c_row);
    return e;
  }

  template <int WHOLE, int ROWS, int VECTORS, class Rows>
  [[gnu::always_inline]] void put(const Vec<int32_t> (&sums)[ROWS][VECTORS], int64_t,
                                  const Rows& out) const {
    constexpr int kVec = kLanes<int32_t>;
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < WHOLE; ++v) store(out.row(i) + v * kVec, scaled(sums[i][v], v * kVec));
  }

  [[gnu::noinline]] void put_partial(int rows, int64_t columns, const int32_t* sums, int sums_row,
                                     float* c, int64_t c_row) const {
    for (int64_t n = 0; n < columns; n += kLanes<int32_t>) {
      const int64_t count = min_of(kLanes<int32_t>, columns - n);
      for (int i = 0; i < rows; ++i)
        store_first(c + i * c_row + n, scaled(load(sums + i * sums_row + n), n), count);
    }
  }

  void finish_late(int64_t, int64_t, float*, int64_t) const {}
};

// Whether pairs of 16 bits are multiplied with the vectors of AVX2, and sums kept where they are.
#if defined(SEPCONV_INT8_VNNI)
inline constexpr bool kWordsInPlace = false;
#else
inline constexpr bool kWordsInPlace = kSumsInPlace;
#endif

struct ByteProduct {
#if defined(SEPCONV_INT8_IN_PLACE)
  using A = uint8_t;
#else
  using A = Int8Weight;
#endif
  using B = Int8Weight;
  using Sum = int32_t;
  using C = uint8_t;
  using Epilogue = QuantizedEpilogue;
  static constexpr int kSteps = kTaps;
  static constexpr int kRows = sepconv::SEPCONV_ISA_NAMESPACE::kRows;
  static constexpr int kVectors = tuning::kProductVectors;
  static constexpr int kColumns = kVectors * kLanes<Sum>;
  static constexpr bool kHalves = SEPCONV_VECTOR_BYTES == 64;
  static constexpr int kPanelRows = kWordsInPlace ? tuning::kPanelRowsARound : 1;

  using Steps = uint32_t;
  [[gnu::always_inline]] static Steps steps(const A* a) {
    Steps all;
    __builtin_memcpy(&all, a, sizeof all);
    return all;
  }
  [[gnu::always_inline]] static Steps first_steps(const A* a, int64_t count) {
    Steps some = 0;
    for (int64_t i = 0; i < count; ++i)
      some |= (static_cast<Steps>(a[i]) & (sizeof(A) == 1 ? 0xffu : 0xffffu))
              << (i * 8 * static_cast<int64_t>(sizeof(A)));
    return some;
  }
  template <class Sums, class Weights>
  [[gnu::always_inline]] static void add(Sums& sums, Steps a, const Weights& b) {
#if defined(SEPCONV_INT8_X86)
    using I = typename Bytes<sizeof(Sums)>::Int;
    I taps;
    if constexpr (sizeof(Sums) == 16)
      taps = reinterpret_cast<I>(_mm_set1_epi32(static_cast<int>(a)));
#if defined(__AVX2__)
    if constexpr (sizeof(Sums) == 32)
      taps = reinterpret_cast<I>(_mm256_set1_epi32(static_cast<int>(a)));
    if constexpr (kWordsInPlace && sizeof(Sums) == 32) {
      Sums products;
      asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
          : "+x"(sums), "=&x"(products)
          : "x"(taps), "x"(b));
      return;
    }
#endif
#if defined(__AVX512BW__)
    if constexpr (sizeof(Sums) == 64)
      taps = reinterpret_cast<I>(_mm512_set1_epi32(static_cast<int>(a)));
#endif
    sums = reinterpret_cast<Sums>(
        Bytes<sizeof(Sums)>::dot(reinterpret_cast<I>(sums), taps, reinterpret_cast<I>(b)));
#elif defined(SEPCONV_INT8_NEON)
    using I = Bytes<16>::Int;
    sums = reinterpret_cast<Sums>(
        Bytes<16>::dot_of_four(reinterpret_cast<I>(sums), a, reinterpret_cast<I>(b)));
#else
    Sums pairs;
    __builtin_memcpy(&pairs, &b, sizeof pairs);
    // The first of a pair is the lower half of a sum's lane, since bytes are little endian.
    const Vec<uint32_t> first = reinterpret_cast<Vec<uint32_t>>(pairs << 16 >> 16) * (a & 0xffffu);
    const Vec<uint32_t> second = reinterpret_cast<Vec<uint32_t>>(pairs >> 16) * (a >> 16);
    sums = reinterpret_cast<Sums>(reinterpret_cast<Vec<uint32_t>>(sums) + first + second);
#endif
  }
};

// The same products, whose sums are stored as float32.
struct ByteProductToFloats : ByteProduct {
  using C = float;
  using Epilogue = ScaledEpilogue;
};

template <>
struct OperandProduct<ByteProduct::A> {
  using Type = ByteProduct;
};
template <>
struct StoringProduct<ByteProduct::A, uint8_t> {
  using Type = ByteProduct;
};
template <>
struct StoringProduct<ByteProduct::A, float> {
  using Type = ByteProductToFloats;
};
#if defined(SEPCONV_INT8_IN_PLACE)
template <>
struct OperandProduct<ByteProduct::B> {
  using Type = ByteProduct;
};
#endif

inline int64_t packed_columns(int64_t filters) { return round_up(filters, ByteProduct::kColumns); }

// Packs a kernel [depth, filters], and its biases and scales, which are as many as the columns of
// its panels.
inline void pack_product(const QuantizedWeights& w, int32_t zero_point, Int8Weight* weights,
                         int32_t* bias, float* scale) {
  const int64_t depth = w.depth(), filters = w.filters;
  // As many columns at a time as a panel has.
  constexpr int64_t kWidth = ByteProduct::kColumns;
  for (int64_t n0 = 0; n0 < filters; n0 += kWidth) {
    const int64_t width = min_of(kWidth, filters - n0);
    for (int64_t k0 = 0; k0 < depth; k0 += kTaps)
      for (int64_t n = n0; n < n0 + kWidth; ++n)
        for (int64_t k = k0; k < k0 + kTaps; ++k)
          *weights++ = n < n0 + width && k < depth ? Int8Weight(w.pointwise_kernel[k * filters + n])
                                                   : Int8Weight(0);
  }
  for (int64_t n = 0; n < packed_columns(filters); ++n) {
    int32_t total = 0;
    for (int64_t k = 0; n < filters && k < depth; ++k) total += w.pointwise_kernel[k * filters + n];
    const int32_t own = n < filters && w.output.bias != nullptr ? w.output.bias[n] : 0;
    bias[n] = packed_bias(own, zero_point, total);
    scale[n] = n < filters ? w.output.scale[n] : 0;
  }
}

// Bytes that product_rows() needs for a copy of so many rows.
inline int64_t copied_bytes(int64_t rows, int64_t depth) {
  if constexpr (std::is_same_v<ByteProduct::A, uint8_t>)
    return 0;
  else
    return round_up(rows * round_up(depth, kTaps) * static_cast<int64_t>(sizeof(ByteProduct::A)),
                    64);
}

// Rows of bytes as they are multiplied: in place, or copied as signed numbers.
inline MatrixA<uint8_t> as_operand(const uint8_t* x, int64_t pitch, int64_t, int64_t, uint8_t*) {
  return {x, pitch, 1};
}
template <class Signed>
MatrixA<Signed> as_operand(const uint8_t* x, int64_t pitch, int64_t rows, int64_t depth,
                           Signed* copy) {
  const int64_t row = round_up(depth, kTaps);
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t k = 0; k < depth; ++k)
      copy[m * row + k] = static_cast<Signed>(x[m * pitch + k] - kByteOffset);
  return {copy, row, 1};
}

// `rows` rows of bytes, `pitch` apart, by the columns [n0, n1) of the weights, n0 at the start of a
// panel; `y` and `residual` are at the first row and column 0. Y: uint8_t or float, see
// QuantizedForward.
template <class Y>
void product_rows(const QuantizedWeights& w, const ProductPack& pack, const uint8_t* x,
                  int64_t pitch, int64_t rows, int64_t n0, int64_t n1, Y* y,
                  const uint8_t* residual, uint8_t* scratch) {
  const int64_t depth = w.depth();
  using A = ByteProduct::A;
  using P = ProductInto<A, Y>;
  const MatrixA<A> a = as_operand(x, pitch, rows, depth, reinterpret_cast<A*>(scratch));
  multiply<false, A, P>(rows, n1 - n0, depth, a, filled(pack.weights + panel_start<A>(depth, n0)),
                        y + n0, w.filters, typename P::Epilogue(pack, w, n0, residual));
  if constexpr (kSame<Y, uint8_t>) {
    if (pack.table == nullptr) return;
    if (n1 - n0 == w.filters) {
      look_up(pack.table, y, rows * w.filters, y);
      return;
    }
    for (int64_t m = 0; m < rows; ++m) {
      uint8_t* const part = y + m * w.filters + n0;
      look_up(pack.table, part, n1 - n0, part);
    }
  }
}

// How a product of `rows` rows is cut into tasks: tiles of rows, and parts of the filters where
// tiles are few.
struct ProductCut {
  Cut tiles, filter_parts;
  int64_t tasks() const { return tiles.count * filter_parts.count; }
};

inline ProductCut cut_product(int64_t rows, int64_t depth, int64_t filters, int64_t threads) {
  const int64_t worth = max_of(1, rows * depth * filters >> tuning::kTaskBytesProductsLog2);
  const int64_t units = ceil_div(rows, kRows), panels = ceil_div(filters, ByteProduct::kColumns);
  int64_t tiles = ceil_div(rows, tuning::kTilePixels);
  if (tiles < 4 * threads) tiles = round_up(tiles, threads);
  tiles = min_of(min_of(tiles, units), max_of(worth, ceil_div(rows, tuning::kTilePixels)));
  const int64_t filter_parts =
      tiles >= threads ? 1
                       : min_of(min_of(panels, ceil_div(threads, tiles)), max_of(1, worth / tiles));
  return {cut_into(rows, tiles, kRows), cut_into(filters, filter_parts, ByteProduct::kColumns)};
}

// A 1x1 convolution over `rows` pixels.
template <class Y>
void product_bytes(const QuantizedWeights& w, const ProductPack& pack, int64_t rows,
                   const uint8_t* x, const uint8_t* residual, Y* y, Runner& runner) {
  const int64_t depth = w.depth();
  const ProductCut cut = cut_product(rows, depth, w.filters, runner.concurrency());
  parallel<uint8_t>(
      runner, cut.tasks(), copied_bytes(cut.tiles.most, depth),
      [&](int64_t task, uint8_t* scratch) {
        const int64_t part = task % cut.filter_parts.count, tile = task / cut.filter_parts.count;
        const int64_t first = cut.tiles.first(tile), end = cut.tiles.first(tile + 1);
        product_rows(w, pack, x + first * depth, depth, end - first, cut.filter_parts.first(part),
                     cut.filter_parts.first(part + 1), y + first * w.filters,
                     residual == nullptr ? nullptr : residual + first * w.filters, scratch);
      });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
