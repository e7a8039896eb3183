// The vector type of the instruction set that this file is compiled for, and its few operations.
//
// Everything in native/kernels lives in a namespace named after the instruction set
// (SEPCONV_ISA_NAMESPACE), and uses no function of the standard library that a compiler may leave
// out of line: such a copy, compiled for a high level, could be the one the linker keeps for all.
#pragma once
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>  // whose functions are always inlined
#endif

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class T>
inline constexpr int kLanes = SEPCONV_VECTOR_BYTES / static_cast<int>(sizeof(T));

// The number of vector registers.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kRegisters = 32;
#else
inline constexpr int kRegisters = 16;
#endif

template <class T>
struct VecTypes {
  typedef T Aligned __attribute__((vector_size(SEPCONV_VECTOR_BYTES)));
  typedef T Unaligned
      __attribute__((vector_size(SEPCONV_VECTOR_BYTES), aligned(alignof(T)), may_alias));
};

template <class T>
using Vec = typename VecTypes<T>::Aligned;

template <class T>
inline Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecTypes<T>::Unaligned*>(p);
}

template <class T>
inline void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecTypes<T>::Unaligned*>(p) = v;
}

// Load and store the first `count` lanes, 1 to all of them. The memory of the others is not
// touched; they read as 0.
#if defined(__AVX512F__)
inline Vec<float> load_first(const float* p, int64_t count) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
}
inline Vec<double> load_first(const double* p, int64_t count) {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p);
}
inline void store_first(float* p, Vec<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
}
inline void store_first(double* p, Vec<double> v, int64_t count) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1), v);
}
#elif defined(__AVX2__)
inline __m256i first_lanes(const float*, int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first_lanes(const double*, int64_t count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
inline Vec<float> load_first(const float* p, int64_t count) {
  return _mm256_maskload_ps(p, first_lanes(p, count));
}
inline Vec<double> load_first(const double* p, int64_t count) {
  return _mm256_maskload_pd(p, first_lanes(p, count));
}
inline void store_first(float* p, Vec<float> v, int64_t count) {
  _mm256_maskstore_ps(p, first_lanes(p, count), v);
}
inline void store_first(double* p, Vec<double> v, int64_t count) {
  _mm256_maskstore_pd(p, first_lanes(p, count), v);
}
#else
template <class T>
inline Vec<T> load_first(const T* p, int64_t count) {
  Vec<T> v{};
  for (int64_t lane = 0; lane < count; ++lane) v[lane] = p[lane];
  return v;
}
template <class T>
inline void store_first(T* p, Vec<T> v, int64_t count) {
  for (int64_t lane = 0; lane < count; ++lane) p[lane] = v[lane];
}
#endif

// Ends what a compiler may plan for a vector, such as a sum, ahead of this place. Without it, GCC
// stores the sums of a loop to memory at every step where few registers are left after the loop,
// and adds up integers in another order, for which it needs more registers than there are.
template <class V>
[[gnu::always_inline]] inline void keep_in_register([[maybe_unused]] V& v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
}

template <class T>
inline Vec<T> zero() {
  return Vec<T>{};
}

template <class T>
inline Vec<T> broadcast(T value) {
  return value -
         Vec<T>{};  // one instruction, where GCC makes dozens of a loop over lanes; keeps -0
}

// Lanes are added in a fixed order, so that a sum does not depend on anything but its input.
template <class T>
inline T sum(Vec<T> v) {
  T total = v[0];
  for (int lane = 1; lane < kLanes<T>; ++lane) total += v[lane];
  return total;
}

inline constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
inline constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
inline constexpr int64_t ceil_div(int64_t a, int64_t b) {  // b > 0, any a
  return a / b + (a % b > 0 ? 1 : 0);
}
inline constexpr int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }
inline constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// The number of parts to cut `total` items into, so that each has about `wanted` items or more.
inline int64_t parts(int64_t total, int64_t wanted) { return max_of(1, total / max_of(1, wanted)); }

// The first item of part `index` when `total` items are cut into `count` parts, whose sizes differ
// by at most 1.
inline int64_t part_start(int64_t total, int64_t count, int64_t index) {
  return total / count * index + total % count * index / count;
}

// `count` rounded up to a multiple of 4, but at most `most`, so that 2 or 4 threads get equally
// many parts. Counts below 3 stay.
inline int64_t shareable(int64_t count, int64_t most) {
  return count < 3 ? count : min_of(round_up(count, 4), most);
}

template <class T>
inline void fill_zero(T* p, int64_t count) {
  for (int64_t i = 0; i < count; ++i) p[i] = T{};
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
