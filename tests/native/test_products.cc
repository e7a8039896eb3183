// Matrix products of other types than the kernels' own (pair_product.h), against a plain loop.
#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "../../native/dispatch.h"
#include "check.h"
#include "guarded.h"
#include "pair_product.h"
#include "sections.h"

namespace test {
namespace {

// Of the level that is in use.
PairProducts products_here() {
#if defined(SEPCONV_X86)
  const std::string level = sepconv::isa_name();
  return level.starts_with("x86-64-v4")   ? sepconv::v4::pair_products()
         : level.starts_with("x86-64-v3") ? sepconv::v3::pair_products()
                                          : sepconv::v2::pair_products();
#else
  return sepconv::baseline::pair_products();
#endif
}

struct Drawn {
  PairProblem problem;
  bool row_bias, column_bias, inverted;
  int64_t a_elements, b_elements, c_elements;
};

class Draw {
 public:
  explicit Draw(uint32_t seed) : random_(seed) {}
  int64_t between(int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random_);
  }
  bool one_in(int64_t count) { return between(1, count) == 1; }
  template <class T>
  std::vector<T> values(int64_t count, int64_t most) {
    std::vector<T> drawn(static_cast<size_t>(count));
    for (T& value : drawn) value = static_cast<T>(between(-most, most));
    return drawn;
  }

 private:
  std::mt19937 random_;
};

// Sizes around those of tiles, and of one row, column and step of k; A and B by rows or columns.
Drawn draw_problem(Draw& draw, const PairProducts& products) {
  Drawn d{};
  PairProblem& p = d.problem;
  p.rows = draw.between(1, 3 * products.tile_rows + 1);
  p.columns = draw.one_in(4) ? products.tile_columns * draw.between(1, 2)
                             : draw.between(1, 3 * products.tile_columns);
  p.depth = draw.one_in(8) ? draw.between(60, 70) : draw.between(1, 21);
  const int64_t apart = draw.between(0, 3);  // elements between rows that no matrix owns
  const bool a_turned = draw.one_in(3);
  p.packs_a = a_turned || draw.one_in(3);
  p.a_row = a_turned ? draw.between(1, 2) : p.depth + apart;
  p.a_col = a_turned ? p.rows * p.a_row + apart : 1;
  // Rows on one set of the first cache, of which fewer are taken together.
  if (!a_turned && draw.one_in(8)) p.a_row = 2048;
  p.b = static_cast<PairProblem::B>(draw.between(0, 2));
  const bool b_turned = p.b == PairProblem::B::packed && draw.one_in(2);
  p.b_row = b_turned ? 1 : p.columns + apart;
  p.b_col = b_turned ? p.depth + apart : 1;
  p.c_row = p.columns + draw.between(0, 2);
  d.row_bias = draw.one_in(2), d.column_bias = draw.one_in(2), d.inverted = draw.one_in(4);
  d.a_elements = (p.rows - 1) * p.a_row + (p.depth - 1) * p.a_col + 1;
  d.b_elements = (p.depth - 1) * p.b_row + (p.columns - 1) * p.b_col + 1;
  d.c_elements = (p.rows - 1) * p.c_row + p.columns;
  return d;
}

int32_t expected(int32_t sum, const PairResult&, int32_t) { return sum; }
uint8_t expected(int32_t sum, const PairResult& result, uint8_t) {
  sum >>= result.shift;
  return static_cast<uint8_t>(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// Memory for one problem after the other, which a product must not leave.
struct Rooms {
  static constexpr size_t kBytes = size_t{1} << 20;
  Guarded a{kBytes}, b{kBytes}, c{kBytes}, packed_a{kBytes}, packed_b{kBytes};
};

template <class T>
const T* put_in(Guarded& room, const std::vector<T>& values) {
  T* const p = static_cast<T*>(room.place(values.size() * sizeof(T), Edge::back));
  std::copy(values.begin(), values.end(), p);
  room.make_read_only();
  return p;
}

template <class T>
T* make_room(Guarded& room, int64_t count) {
  return static_cast<T*>(room.place(static_cast<size_t>(count) * sizeof(T), Edge::back));
}

// Packed B is [panel][pair of k][column][k of the pair], filled up with zeros.
bool is_packed(const PairProblem& p, int64_t width, const std::vector<int16_t>& b,
               const int16_t* packed) {
  for (int64_t n0 = 0; n0 < p.columns; n0 += width)
    for (int64_t k0 = 0; k0 < p.depth; k0 += 2)
      for (int64_t n = n0; n < n0 + width; ++n)
        for (int64_t k = k0; k < k0 + 2; ++k) {
          const bool inside = n < p.columns && k < p.depth;
          if (*packed++ != (inside ? b[static_cast<size_t>(k * p.b_row + n * p.b_col)] : 0))
            return false;
        }
  return true;
}

template <class Stored, class Multiply>
void check_one(const PairProducts& products, Multiply multiply, uint32_t seed, Rooms& rooms) {
  Draw draw(seed);
  const Drawn d = draw_problem(draw, products);
  const PairProblem& p = d.problem;
  const auto a = draw.values<int16_t>(d.a_elements, 2000);
  const auto b = draw.values<int16_t>(d.b_elements, 2000);
  const auto row_bias = draw.values<int32_t>(p.rows, 100000);
  const auto column_bias = draw.values<int32_t>(p.columns, 100000);
  const PairResult result{d.row_bias ? row_bias.data() : nullptr,
                          d.column_bias ? column_bias.data() : nullptr, 15, d.inverted};

  const int64_t columns = p.b == PairProblem::B::one_panel ? products.tile_columns : p.columns;
  auto* const packed_a = make_room<int16_t>(
      rooms.packed_a, p.packs_a ? products.packed_a(p.rows, p.depth) : int64_t{0});
  auto* const packed_b = make_room<int16_t>(rooms.packed_b, products.packed_b(p.depth, columns));
  auto* const c = make_room<Stored>(rooms.c, d.c_elements);
  const std::vector<Stored> before(c, c + d.c_elements);
  multiply(p, result, put_in(rooms.a, a), put_in(rooms.b, b), packed_a, packed_b, c);

  bool right = p.b == PairProblem::B::one_panel || is_packed(p, products.tile_columns, b, packed_b);
  for (int64_t m = 0; m < p.rows; ++m)
    for (int64_t n = 0; n < p.c_row && m * p.c_row + n < d.c_elements; ++n) {
      const auto at = static_cast<size_t>(m * p.c_row + n);
      Stored want = before[at];  // between the rows nothing is written
      if (n < p.columns) {
        int32_t sum = (d.row_bias ? row_bias[static_cast<size_t>(m)] : 0) +
                      (d.column_bias ? column_bias[static_cast<size_t>(n)] : 0);
        for (int64_t k = 0; k < p.depth; ++k)
          sum += a[static_cast<size_t>(m * p.a_row + k * p.a_col)] *
                 b[static_cast<size_t>(k * p.b_row + n * p.b_col)];
        want = expected(sum, result, Stored{});
        if (d.inverted) want = static_cast<Stored>(~want);
      }
      right = right && c[at] == want;
    }
  const bool kept = rooms.c.intact() && rooms.packed_a.intact() && rooms.packed_b.intact();
  if (!CHECK(right && kept))
    std::fprintf(stderr, "  pairs of int16, seed %u: %lld x %lld x %lld, A %s, B %d%s\n", seed,
                 static_cast<long long>(p.rows), static_cast<long long>(p.depth),
                 static_cast<long long>(p.columns), p.packs_a ? "packed" : "in place",
                 static_cast<int>(p.b), kept ? "" : ", wrote outside");
}

}  // namespace

void check_products(int problems) {
  const PairProducts products = products_here();
  Rooms rooms;
  for (int i = 0; i < problems; ++i) {
    check_one<int32_t>(products, products.multiply, static_cast<uint32_t>(i), rooms);
    check_one<uint8_t>(products, products.multiply_to_bytes, static_cast<uint32_t>(i), rooms);
  }
}

}  // namespace test
