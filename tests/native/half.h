// bfloat16 and float16 by the definition of their bits, one number at a time.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

namespace test {

// 1 bit of sign, EXPONENT bits of exponent and FRACTION of fraction, as IEEE 754 has them.
template <int EXPONENT, int FRACTION>
struct Half16 {
  static constexpr int kBias = (1 << (EXPONENT - 1)) - 1;
  static constexpr int kOne = 1 << FRACTION;  // the bit before the fraction
  static constexpr int kInfinite = ((1 << EXPONENT) - 1) << FRACTION;
  uint16_t bits = 0;

  Half16() = default;
  Half16(double v) : bits(static_cast<uint16_t>((std::signbit(v) ? 0x8000 : 0) + size_of(v))) {}
  operator double() const {
    const int size = bits & 0x7fff, exponent = size >> FRACTION, fraction = size & (kOne - 1);
    double v;
    if (size >= kInfinite)
      v = fraction != 0 ? std::nan("") : std::numeric_limits<double>::infinity();
    else if (exponent == 0)
      v = std::ldexp(fraction, 1 - kBias - FRACTION);
    else
      v = std::ldexp(kOne + fraction, exponent - kBias - FRACTION);
    return (bits & 0x8000) != 0 ? -v : v;
  }

 private:
  static int size_of(double v) {
    if (std::isnan(v)) return kInfinite + kOne / 2;
    if (std::isinf(v)) return kInfinite;
    if (v == 0) return 0;
    const int exponent = std::max(std::ilogb(v), 1 - kBias);
    // In units of the last place; rounding up to the next power of two carries into the exponent.
    const int units =
        static_cast<int>(std::nearbyint(std::ldexp(std::fabs(v), FRACTION - exponent)));
    return std::min(((exponent + kBias - 1) << FRACTION) + units, kInfinite);
  }
};

using BFloat16 = Half16<8, 7>;
using Float16 = Half16<5, 10>;

// What a kernel's rounding is made of: `unit` of a sum, and where results are stored in less, half
// a unit of theirs, `stored` times the value or `least`.
template <class T>
struct Rounding {
  static constexpr double unit = static_cast<double>(std::numeric_limits<T>::epsilon());
  static constexpr double stored = 0;
  static constexpr double least = static_cast<double>(std::numeric_limits<T>::min()) * 64;
};
template <int EXPONENT, int FRACTION>
struct Rounding<Half16<EXPONENT, FRACTION>> {
  static constexpr double unit = Rounding<float>::unit;
  static constexpr double stored = 0.5 / (1 << FRACTION);
  static inline const double least =
      Rounding<float>::least + std::ldexp(0.5, 1 - Half16<EXPONENT, FRACTION>::kBias - FRACTION);
};

// The least numbers of a type: what there is between them and 0.
template <class T>
struct Least {
  static T normal() { return std::numeric_limits<T>::min(); }
  static T denormal() { return std::numeric_limits<T>::denorm_min(); }
};
template <int EXPONENT, int FRACTION>
struct Least<Half16<EXPONENT, FRACTION>> {
  using T = Half16<EXPONENT, FRACTION>;
  static T normal() { return std::ldexp(1.0, 1 - T::kBias); }
  static T denormal() { return std::ldexp(1.0, 1 - T::kBias - FRACTION); }
};

}  // namespace test
