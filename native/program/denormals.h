// Numbers too small to be normal, read and written as 0 by the running thread for a while.
#pragma once
#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace sepconv::program {

// A processor takes a hundred times as long for a product with such a number, and a network that
// gates its channels makes many of them. The thread's own mode comes back at the end.
class DenormalsAsZeros {
 public:
#if defined(__x86_64__)
  DenormalsAsZeros() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlush | kAsZeros); }
  ~DenormalsAsZeros() { _mm_setcsr(before_); }

 private:
  static constexpr unsigned kFlush = 0x8000, kAsZeros = 0x0040;
  const unsigned before_;
#elif defined(__aarch64__)
  DenormalsAsZeros() : before_(mode()) { set(before_ | kFlush); }
  ~DenormalsAsZeros() { set(before_); }

 private:
  static constexpr uint64_t kFlush = uint64_t{1} << 24;
  static uint64_t mode() {
    uint64_t value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void set(uint64_t value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
  const uint64_t before_;
#else
  DenormalsAsZeros() = default;
#endif

 public:
  DenormalsAsZeros(const DenormalsAsZeros&) = delete;
  DenormalsAsZeros& operator=(const DenormalsAsZeros&) = delete;
};

}  // namespace sepconv::program
