// Scratch memory and workspaces, both kept for reuse: memory fresh from the system costs a page
// fault every 4 KiB, which can take longer than a kernel takes for the same bytes.
#include "memory.h"

#include <atomic>
#include <new>

#include "tuning.h"
#include "turn.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(SEPCONV_CHECK_MEMORY)
#include <sanitizer/asan_interface.h>

#include <cstring>
#endif

namespace sepconv {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

// In a build for AddressSanitizer, new memory is filled with NaN, so that a kernel that reads what
// it did not write gives NaN, and the bytes beyond those asked for are closed, so that their use is
// an error.
void lend(void* memory, size_t wanted, size_t bytes) {
#if defined(SEPCONV_CHECK_MEMORY)
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
  std::memset(memory, 0xFF, bytes);
  const size_t used = (wanted + 7) / 8 * 8;
  if (used < bytes) ASAN_POISON_MEMORY_REGION(static_cast<char*>(memory) + used, bytes - used);
#else
  (void)memory, (void)wanted, (void)bytes;
#endif
}

void take_back(void* memory, size_t bytes) {
#if defined(SEPCONV_CHECK_MEMORY)
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
#else
  (void)memory, (void)bytes;
#endif
}

// Allocations given back and not yet taken again; the oldest are freed first when there are too
// many.
//
// No caller waits for the cache. While another thread uses it, memory comes from the system and
// goes back there. So a child of fork() works even if a thread that it does not have was using the
// cache.
class WorkspaceCache {
 public:
  Allocation take(size_t bytes) {
    if (Turn turn{taken_}) {
      int best = -1;
      for (int i = 0; i < count_; ++i)
        if (allocations_[i].bytes >= bytes && allocations_[i].bytes / 2 <= bytes &&
            (best < 0 || allocations_[i].bytes < allocations_[best].bytes))
          best = i;
      if (best >= 0) return remove(best);
    }
    return allocate(bytes);
  }

  void give(Allocation allocation) {
    Turn turn{taken_};
    if (!turn || allocation.bytes > tuning::kKeptBytes) {
      release(allocation);
      return;
    }
    while (count_ == tuning::kKeptAllocations || bytes_ + allocation.bytes > tuning::kKeptBytes)
      release(remove(0));
    allocations_[count_++] = allocation;
    bytes_ += allocation.bytes;
  }

 private:
  static Allocation allocate(size_t bytes) {
    const bool large = bytes >= 2 * kHugePage;
    const size_t alignment = large ? kHugePage : kAlignment;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    Allocation allocation{::operator new(bytes, std::align_val_t{alignment}), bytes, alignment};
#if defined(__linux__)
    if (large) madvise(allocation.memory, bytes, MADV_HUGEPAGE);
#endif
    return allocation;
  }

  static void release(Allocation allocation) {
    ::operator delete(allocation.memory, std::align_val_t{allocation.alignment});
  }

  Allocation remove(int index) {
    const Allocation allocation = allocations_[index];
    for (int i = index + 1; i < count_; ++i) allocations_[i - 1] = allocations_[i];
    --count_;
    bytes_ -= allocation.bytes;
    return allocation;
  }

  std::atomic_flag taken_;
  Allocation allocations_[tuning::kKeptAllocations] = {};
  int count_ = 0;
  size_t bytes_ = 0;
};

// Never destroyed: calls may be in flight while the process ends.
WorkspaceCache& cache() {
  static WorkspaceCache* const instance = new WorkspaceCache;
  return *instance;
}

}  // namespace

Allocation take_workspace(size_t bytes) {
  const Allocation allocation = cache().take(bytes);
  lend(allocation.memory, bytes, allocation.bytes);
  return allocation;
}

void give_workspace(Allocation allocation) {
  take_back(allocation.memory, allocation.bytes);
  cache().give(allocation);
}

namespace {

struct ThreadScratch {
  void* memory = nullptr;
  size_t bytes = 0;
  ~ThreadScratch() { release(); }
  void release() {
    take_back(memory, bytes);
    ::operator delete(memory, std::align_val_t{kAlignment}, std::nothrow);
    memory = nullptr;
    bytes = 0;
  }
  void* get(size_t wanted) {
    if (wanted > bytes) {
      release();
      memory = ::operator new(wanted, std::align_val_t{kAlignment}, std::nothrow);
      if (memory != nullptr) bytes = wanted;
    }
    if (memory != nullptr) lend(memory, wanted, bytes);
    return memory;
  }
};

thread_local ThreadScratch thread_scratch, thread_outer_scratch;

struct ThreadKept {
  ThreadScratch scratch;
  uint64_t call = 0;
  Kept kept{nullptr, -1};
};

thread_local ThreadKept thread_kept;

struct ScratchRun {
  ScratchTaskFunction function;
  void* context;
  ScratchBytes bytes;
  uint64_t call;
  std::atomic<bool> failed{false};

  // The running thread's kept memory, or null where there is no memory.
  Kept* kept() const {
    ThreadKept& mine = thread_kept;
    if (mine.call != call || mine.kept.memory == nullptr) {
      mine.kept = {mine.scratch.get(bytes.kept), -1};
      mine.call = call;
    }
    return mine.kept.memory == nullptr ? nullptr : &mine.kept;
  }

  void run(int64_t task) {
    void* scratch = bytes.scratch == 0 ? nullptr : thread_scratch.get(bytes.scratch);
    Kept* const kept_here = bytes.kept == 0 ? nullptr : kept();
    if ((bytes.scratch != 0 && scratch == nullptr) || (bytes.kept != 0 && kept_here == nullptr))
      failed.store(true, std::memory_order_relaxed);
    else
      function(context, task, scratch, kept_here);
  }
};

std::atomic<uint64_t> calls{0};

}  // namespace

void* outer_scratch(size_t bytes) { return thread_outer_scratch.get(bytes); }

void run_with_scratch(Runner& runner, int64_t tasks, ScratchBytes bytes,
                      ScratchTaskFunction function, void* context) {
  ScratchRun call{function, context, bytes, calls.fetch_add(1, std::memory_order_relaxed) + 1};
  runner.run(
      &runner, tasks,
      [](void* argument, int64_t task) { static_cast<ScratchRun*>(argument)->run(task); }, &call);
  if (call.failed.load(std::memory_order_relaxed)) throw std::bad_alloc();
}

}  // namespace sepconv
