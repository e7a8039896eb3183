// Scratch memory of threads and workspaces of calls, both kept for reuse: memory fresh from the
// system costs a page fault every 4 KiB, more than a kernel may take for the same bytes.
#include "memory.h"

#include <atomic>
#include <new>

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

// In a build for AddressSanitizer a kernel that uses memory before it wrote there finds NaN, and
// one that goes beyond the bytes it asked for (what it gets may be larger) is caught.
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

// Blocks given back and not yet asked for again; the oldest go first when they are too many.
//
// Nobody waits for it: who finds it taken does without. So a child of fork() that inherits it taken
// by a thread it does not have works on.
class WorkspaceCache {
 public:
  Block take(size_t bytes) {
    if (Turn turn{taken_}) {
      int best = -1;
      for (int i = 0; i < count_; ++i)
        if (blocks_[i].bytes >= bytes && blocks_[i].bytes / 2 <= bytes &&
            (best < 0 || blocks_[i].bytes < blocks_[best].bytes))
          best = i;
      if (best >= 0) return remove(best);
    }
    return allocate(bytes);
  }

  void give(Block block) {
    Turn turn{taken_};
    if (!turn || block.bytes > kMostBytes) {
      release(block);
      return;
    }
    while (count_ == kMostBlocks || bytes_ + block.bytes > kMostBytes) release(remove(0));
    blocks_[count_++] = block;
    bytes_ += block.bytes;
  }

 private:
  class Turn {
   public:
    explicit Turn(std::atomic_flag& taken)
        : taken_(taken), mine_(!taken.test_and_set(std::memory_order_acquire)) {}
    ~Turn() {
      if (mine_) taken_.clear(std::memory_order_release);
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    explicit operator bool() const { return mine_; }

   private:
    std::atomic_flag& taken_;
    const bool mine_;
  };

  static constexpr int kMostBlocks = 16;
  static constexpr size_t kMostBytes = size_t{64} << 20;

  static Block allocate(size_t bytes) {
    const bool large = bytes >= 2 * kHugePage;
    const size_t alignment = large ? kHugePage : kAlignment;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    Block block{::operator new(bytes, std::align_val_t{alignment}), bytes, alignment};
#if defined(__linux__)
    if (large) madvise(block.memory, bytes, MADV_HUGEPAGE);
#endif
    return block;
  }

  static void release(Block block) {
    ::operator delete(block.memory, std::align_val_t{block.alignment});
  }

  Block remove(int index) {
    const Block block = blocks_[index];
    for (int i = index + 1; i < count_; ++i) blocks_[i - 1] = blocks_[i];
    --count_;
    bytes_ -= block.bytes;
    return block;
  }

  std::atomic_flag taken_;
  Block blocks_[kMostBlocks] = {};
  int count_ = 0;
  size_t bytes_ = 0;
};

// Never destroyed: calls may be in flight while the process ends.
WorkspaceCache& cache() {
  static WorkspaceCache* const instance = new WorkspaceCache;
  return *instance;
}

}  // namespace

Block take_workspace(size_t bytes) {
  const Block block = cache().take(bytes);
  lend(block.memory, bytes, block.bytes);
  return block;
}

void give_workspace(Block block) {
  take_back(block.memory, block.bytes);
  cache().give(block);
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

thread_local ThreadScratch thread_scratch;

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

  // The running thread's, null where there is no memory.
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

void run_with_scratch(Runner& runner, int64_t tasks, ScratchBytes bytes,
                      ScratchTaskFunction function, void* context) {
  ScratchRun call{function, context, bytes, calls.fetch_add(1, std::memory_order_relaxed) + 1};
  runner.run(
      &runner, tasks,
      [](void* argument, int64_t task) { static_cast<ScratchRun*>(argument)->run(task); }, &call);
  if (call.failed.load(std::memory_order_relaxed)) throw std::bad_alloc();
}

}  // namespace sepconv
