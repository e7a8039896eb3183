// Memory fresh from the system costs a page fault every 4 KiB when it is first written, which may
// take longer than the kernel that writes. With pages of 2 MiB it costs a fifth of that. Linux uses
// such pages without being asked only where it is configured to.
#include "huge_pages.h"

#include <cstdint>

#include "tuning.h"

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

struct Range {
  uintptr_t first = 0, last = 0;
  bool holds(uintptr_t address) const { return first <= address && address < last; }
};

// Whether the page at an address has memory already; true where that cannot be found out.
bool resident(uintptr_t address) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  unsigned char state = 1;
  return mincore(reinterpret_cast<void*>(address / page * page), 1, &state) != 0 ||
         (state & 1) != 0;
}

// The mapping that contains an address, or an empty range where it belongs to a file or has a name.
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
    // The permissions, offset, device, inode and name follow.
    char inode[3] = "", name[2] = "";
    const int fields = std::sscanf(rest, " %*s %*s %*s %2s %1s", inode, name);
    return fields == 1 && std::strcmp(inode, "0") == 0 ? range : Range{};
  }
  return {};
}

}  // namespace

void prefer_huge_pages(const void* array, size_t bytes) {
  if (bytes < tuning::kHugePageBytes) return;
  const uintptr_t middle = reinterpret_cast<uintptr_t>(array) + bytes / 2;
  if (resident(middle)) return;
  // A thread does nothing while another is here: the two arrays are often in the same mapping.
  static std::atomic_flag taken;
  if (taken.test_and_set(std::memory_order_acquire)) return;
  // The last mapping found, since engines often place a step's arrays at the addresses of the step
  // before. It may be another mapping by now, or none; advice does no harm to either.
  static Range known;
  if (!known.holds(middle)) known = mapping_of(middle);
  if (known.first < known.last)
    madvise(reinterpret_cast<void*>(known.first), known.last - known.first, MADV_HUGEPAGE);
  taken.clear(std::memory_order_release);
}

void prefer_huge_pages_here(const void* array, size_t bytes) {
  if (bytes < tuning::kHugePageBytes) return;
  const uintptr_t first = reinterpret_cast<uintptr_t>(array), last = first + bytes;
  if (resident(first + bytes / 2)) return;
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const uintptr_t from = first / kHugePage * kHugePage;
  const uintptr_t to = (last + kHugePage - 1) / kHugePage * kHugePage;
  // Where a part of that is not memory, the system says so and advises the rest.
  madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
}
#else
void prefer_huge_pages(const void*, size_t) {}
void prefer_huge_pages_here(const void*, size_t) {}
#endif

}  // namespace sepconv
