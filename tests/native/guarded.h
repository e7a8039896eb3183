// Memory between two pages that nobody may touch, for buffers that a kernel must not leave.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#define TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_ASAN 1
#endif
#endif
#if defined(TEST_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace test {

enum class Edge { front, back };  // which end of the buffer touches a guard page

// Room for one buffer at a time. A buffer ends (or begins) at a guard page, so that reading or
// writing one element too far ends the process; what is left of its pages on the other side holds a
// pattern, which a stray write would change (and AddressSanitizer, where it is in use, watches).
class Guarded {
 public:
  explicit Guarded(size_t capacity)
      : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))), capacity_(round_up(capacity)) {
    void* all = mmap(nullptr, capacity_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) std::abort();
    room_ = static_cast<uint8_t*>(all) + page_;
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
    unwatch();
    munmap(room_ - page_, capacity_ + 2 * page_);
  }

  // A writable buffer; the one before it is gone.
  void* place(size_t bytes, Edge edge) {
    if (bytes > capacity_) std::abort();
    unwatch();
    protect(open_, open_bytes_, PROT_NONE);
    open_bytes_ = round_up(bytes);
    open_ = edge == Edge::front ? room_ : room_ + capacity_ - open_bytes_;
    protect(open_, open_bytes_, PROT_READ | PROT_WRITE);
    bytes_ = bytes;
    data_ = edge == Edge::front ? room_ : room_ + capacity_ - bytes;
    std::memset(open_, kPattern, open_bytes_);
    watch();
    return data_;
  }

  void make_read_only() { protect(open_, open_bytes_, PROT_READ); }

  // Whether the rest of the buffer's pages is as it was.
  bool intact() {
    unwatch();
    for (const uint8_t* p = open_; p < open_ + open_bytes_; ++p)
      if ((p < data_ || p >= data_ + bytes_) && *p != kPattern) return false;
    watch();
    return true;
  }

 private:
  static constexpr uint8_t kPattern = 0xA5;

  size_t round_up(size_t bytes) const { return (bytes + page_ - 1) / page_ * page_; }
  static void protect(uint8_t* start, size_t bytes, int how) {
    if (bytes != 0 && mprotect(start, bytes, how) != 0) std::abort();
  }
  // AddressSanitizer knows 8 bytes at a time, so the slack's last odd bytes are left to the
  // pattern.
  void watch() {
#if defined(TEST_ASAN)
    if (open_bytes_ == 0) return;
    ASAN_POISON_MEMORY_REGION(open_, static_cast<size_t>(data_ - open_) / 8 * 8);
    const size_t used = (static_cast<size_t>(data_ - open_) + bytes_ + 7) / 8 * 8;
    ASAN_POISON_MEMORY_REGION(open_ + used, open_bytes_ - used);
#endif
  }
  void unwatch() {
#if defined(TEST_ASAN)
    if (open_bytes_ != 0) ASAN_UNPOISON_MEMORY_REGION(open_, open_bytes_);
#endif
  }

  const size_t page_, capacity_;
  uint8_t* room_ = nullptr;
  uint8_t* open_ = nullptr;
  size_t open_bytes_ = 0;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace test
