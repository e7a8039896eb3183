// What a matrix product is made of, as one type, over which packing (gemm_pack.h), micro-kernels
// (micro_kernel.h) and the driver (gemm.h) are templates. Such a policy P has
//
//   A, B, Sum, C      the types of the operands' elements, of the sums and of what is stored
//   kSteps            steps of k that a row of a panel holds, beside each other for each column: as
//                     many as one instruction multiplies and adds up. That many elements of B are
//                     as large as a sum, so that a vector of B belongs to a vector of sums
//   kRows, kVectors   the register tile: rows of A, and vectors of sums in each
//   kColumns          the columns of those vectors, which are a panel's
//   kHalves           whether the last columns of a tile may be half a vector
//   kPanelRows        rows of a panel that one round of a micro-kernel's loop multiplies
//   Steps             kSteps elements of A's row, as they are multiplied with a vector of B
//   steps(a)          those that lie at `a`
//   first_steps(a, count)   the first `count` alone, where k ends within a row of a panel: the
//                     others count as 0 and are not read. Only where kSteps > 1
//   add(sums, steps, b)     what one row of a panel adds to a vector of sums, or to half of one
//   Epilogue          what happens to finished sums; gemm_epilogue.h says what it offers
//
// Whoever has operands of a type finds the policy as ProductOf, and with another C as ProductInto;
// whoever has a tensor finds the type of its operands as Multiplied.
#pragma once
#include "../tuning.h"
#include "gemm_epilogue.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// The usual height of a register tile, in which tasks are cut, too.
inline constexpr int kRows = kRegisters == 32 ? tuning::kProductRowsOf32 : tuning::kProductRowsOf16;

// Half a vector, for the last columns of a tile: it costs half as much on processors that execute a
// wide vector in two steps.
template <class T>
struct HalfVecTypes {
  typedef T Aligned __attribute__((vector_size(SEPCONV_VECTOR_BYTES / 2)));
  typedef T Unaligned
      __attribute__((vector_size(SEPCONV_VECTOR_BYTES / 2), aligned(alignof(T)), may_alias));
};

template <>
struct HalfVecTypes<BFloat16> : HalfVecTypes<uint16_t> {};

// Whether sums are kept in their registers by instructions written down: with the 16 of AVX2, GCC
// 12 would put some where a factor was, which takes copies, and memory where several rows of a
// panel are multiplied in a round.
#if defined(__AVX2__) && !defined(__AVX512F__)
inline constexpr bool kSumsInPlace = true;
#else
inline constexpr bool kSumsInPlace = false;
#endif

// float32 and float64: everything is of one type, or what is stored of a half type.
template <class T, class Stored = T>
struct FloatProduct {
  using A = T;
  using B = T;
  using Sum = T;
  using C = Stored;
  using Epilogue = sepconv::SEPCONV_ISA_NAMESPACE::Epilogue<T, Stored>;
  static constexpr int kSteps = 1;
  static constexpr int kRows = sepconv::SEPCONV_ISA_NAMESPACE::kRows;
  static constexpr int kVectors = tuning::kProductVectors;
  static constexpr int kColumns = kVectors * kLanes<Sum>;
  static constexpr bool kHalves = SEPCONV_VECTOR_BYTES == 64 && sizeof(Sum) == 4;
  static constexpr bool kInPlace = kSumsInPlace && kSame<T, float>;
  static constexpr int kPanelRows = kInPlace ? tuning::kPanelRowsARound : 1;

  using Steps = A;
  [[gnu::always_inline]] static Steps steps(const A* a) { return *a; }
  template <class Vector>
  [[gnu::always_inline]] static void add(Vector& sums, Steps a, const Vector& b) {
#if defined(__AVX2__)
    if constexpr (kInPlace) {
      asm("vfmadd231ps %2, %1, %0" : "+x"(sums) : "x"(broadcast(a)), "x"(b));
      return;
    }
#endif
    sums += a * b;
  }
};

// The policy of the product that has a type as one of its operands.
template <class T>
struct OperandProduct {
  using Type = FloatProduct<T>;
};
template <class T>
using ProductOf = typename OperandProduct<T>::Type;

// The same, of operands of type T, where C is of another type.
template <class T, class Stored>
struct StoringProduct {
  using Type = FloatProduct<T, Stored>;
};
template <class T, class Stored>
using ProductInto = typename StoringProduct<T, Stored>::Type;

// The type of operands that tensors of T are multiplied as. Where it is another one, they are
// converted while they are packed, or while a task reads them.
template <class T>
struct MultipliedAs {
  using Type = Real<T>;
};
template <class T>
using Multiplied = typename MultipliedAs<T>::Type;

// Columns of a panel, for whoever cuts a product or fills panels.
template <class T>
inline constexpr int kPanel = ProductOf<T>::kColumns;

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
