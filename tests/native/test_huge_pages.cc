// Advice on memory: it changes nothing that is there, and takes any address.
#include <cstring>
#include <vector>

#include "../../native/huge_pages.h"
#include "check.h"
#include "sections.h"

#if defined(__linux__)
#include <sys/mman.h>

#include <cstdio>
#include <string>
#endif

namespace test {

#if defined(__linux__)
namespace {

constexpr size_t kBytes = size_t{64} << 20, kHugePage = size_t{2} << 20;

// Whether the mapping of an address was advised to use huge pages.
bool advised(const void* address) {
  FILE* const maps = std::fopen("/proc/self/smaps", "r");
  if (maps == nullptr) return false;
  char line[512];
  bool inside = false, found = false;
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    unsigned long first = 0, last = 0;
    char flags[5];
    if (std::sscanf(line, "%lx-%lx %4s", &first, &last, flags) == 3)
      inside = first <= reinterpret_cast<unsigned long>(address) &&
               reinterpret_cast<unsigned long>(address) < last;
    else if (inside && std::strncmp(line, "VmFlags:", 8) == 0)
      found = std::strstr(line, " hg") != nullptr;
  }
  std::fclose(maps);
  return found;
}

void* map() {
  void* const memory =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  return memory;
}

}  // namespace

void check_huge_pages() {
  char* memory = static_cast<char*>(map());
  memory[0] = 1;
  memory[kBytes - 1] = 2;
  sepconv::prefer_huge_pages(memory, 1000);  // small: not worth it
  CHECK(!advised(memory));
  // An emulator or a kernel without huge pages takes no such advice.
  const bool possible = madvise(memory, 4096, MADV_HUGEPAGE) == 0 && advised(memory);
  madvise(memory, 4096, MADV_NOHUGEPAGE);
  sepconv::prefer_huge_pages(memory + kBytes / 4, kBytes / 4);
  CHECK(advised(memory + kBytes / 4) == possible);
  CHECK(memory[0] == 1 && memory[kBytes - 1] == 2 && memory[kBytes / 2] == 0);
  munmap(memory, kBytes);
  // The same address may be another mapping's by now, or nobody's.
  sepconv::prefer_huge_pages(memory + kBytes / 4, kBytes / 4);
  memory = static_cast<char*>(map());
  sepconv::prefer_huge_pages(memory, kBytes);
  CHECK(advised(memory + kBytes / 2) == possible);
  std::memset(memory, 3, kBytes);
  sepconv::prefer_huge_pages(memory, kBytes);  // in use
  CHECK(memory[0] == 3 && memory[kBytes - 1] == 3);
  munmap(memory, kBytes);
  // An array alone: the whole pages that it has a part of, and nobody else's.
  memory = static_cast<char*>(map());
  char* const array = memory + kBytes / 2;
  sepconv::prefer_huge_pages_here(array, 1000);
  CHECK(!advised(array));
  sepconv::prefer_huge_pages_here(array, kBytes / 8);
  CHECK(advised(array) == possible && advised(array + kBytes / 8 - 1) == possible);
  CHECK(!advised(array - kHugePage) && !advised(array + kBytes / 8 + kHugePage));
  std::memset(array, 5, kBytes / 8);
  sepconv::prefer_huge_pages_here(array, kBytes / 8);  // in use
  CHECK(array[-1] == 0 && array[0] == 5 && array[kBytes / 8 - 1] == 5);
  munmap(memory, kBytes);
  sepconv::prefer_huge_pages_here(array, kBytes / 8);  // nobody's
  std::vector<char> heap(1 << 20, 4);
  sepconv::prefer_huge_pages(heap.data(), heap.size());
  sepconv::prefer_huge_pages(nullptr, kBytes);
  sepconv::prefer_huge_pages_here(heap.data(), heap.size());
  sepconv::prefer_huge_pages_here(nullptr, kBytes);
  CHECK(heap.front() == 4 && heap.back() == 4);
}
#else
void check_huge_pages() {
  std::vector<char> memory(1 << 20, 4);
  sepconv::prefer_huge_pages(memory.data(), memory.size());
  sepconv::prefer_huge_pages_here(memory.data(), memory.size());
  CHECK(memory.front() == 4 && memory.back() == 4);
}
#endif

}  // namespace test
