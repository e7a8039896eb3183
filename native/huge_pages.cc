// Memory fresh from the system costs a page fault every 4 KiB when it is first written, which may
// take longer than the kernel that writes; in pages of 2 MiB it costs a fifth of that. Linux gives
// such pages unasked only where it was set up to.
#include "huge_pages.h"

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#endif

namespace sepconv {

#if defined(__linux__)
namespace {

// Below this, what is asked for costs more than it saves.
constexpr size_t kLeastBytes = size_t{256} << 10;

struct Range {
  uintptr_t first = 0, last = 0;
  bool holds(uintptr_t address) const { return first <= address && address < last; }
};

// Whether the page of an address has memory already. Where that cannot be told, it is said to.
bool resident(uintptr_t address) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  unsigned char state = 1;
  return mincore(reinterpret_cast<void*>(address / page * page), 1, &state) != 0 ||
         (state & 1) != 0;
}

// The mapping that an address is in, of those that have no file and no name.
Range mapping_of(uintptr_t address) {
  const std::unique_ptr<FILE, int (*)(FILE*)> maps(std::fopen("/proc/self/maps", "re"),
                                                   std::fclose);
  char line[512];
  while (maps != nullptr && std::fgets(line, sizeof line, maps.get()) != nullptr) {
    char* rest = line;
    Range range;
    range.first = std::strtoull(rest, &rest, 16);
    range.last = std::strtoull(rest + 1, &rest, 16);
    if (!range.holds(address)) continue;
    // What follows is its permissions, offset, device, inode and name.
    char inode[3] = "", name[2] = "";
    const int fields = std::sscanf(rest, " %*s %*s %*s %2s %1s", inode, name);
    return fields == 1 && std::strcmp(inode, "0") == 0 ? range : Range{};
  }
  return {};
}

}  // namespace

void prefer_huge_pages(const void* array, size_t bytes) {
  if (bytes < kLeastBytes) return;
  const uintptr_t middle = reinterpret_cast<uintptr_t>(array) + bytes / 2;
  if (resident(middle)) return;
  // Who finds it taken does without: what another thread asks for may well be the same.
  static std::atomic_flag taken;
  if (taken.test_and_set(std::memory_order_acquire)) return;
  // The last mapping found: engines take the next step's memory at the same addresses. By now it
  // may be another one, or none, and is asked for again; the advice harms neither.
  static Range known;
  if (!known.holds(middle)) known = mapping_of(middle);
  if (known.first < known.last)
    madvise(reinterpret_cast<void*>(known.first), known.last - known.first, MADV_HUGEPAGE);
  taken.clear(std::memory_order_release);
}
#else
void prefer_huge_pages(const void*, size_t) {}
#endif

}  // namespace sepconv
