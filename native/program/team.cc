// A team of the pool's threads.
#include "team.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "../pause.h"
#include "denormals.h"

namespace sepconv::program {
namespace {

// The consecutive tasks of a step that a member begins with, not yet claimed: from `begin`, which
// its owner counts up, to `end`, which others count down. Both in one word, so that a claim is one
// exchange.
class alignas(64) Share {
 public:
  void set(uint32_t begin, uint32_t end) {
    word_.store(join(begin, end), std::memory_order_release);
  }
  // Each gives the task claimed, or -1 where none is left.
  int64_t claim_first() { return claim(true); }
  int64_t claim_last() { return claim(false); }

 private:
  static uint64_t join(uint32_t begin, uint32_t end) {
    return static_cast<uint64_t>(begin) << 32 | end;
  }
  int64_t claim(bool first) {
    uint64_t word = word_.load(std::memory_order_acquire);
    for (;;) {
      const auto begin = static_cast<uint32_t>(word >> 32), end = static_cast<uint32_t>(word);
      if (begin >= end) return -1;
      const uint64_t rest = first ? join(begin + 1, end) : join(begin, end - 1);
      if (word_.compare_exchange_weak(word, rest, std::memory_order_acquire))
        return first ? begin : end - 1;
    }
  }
  std::atomic<uint64_t> word_{0};
};

class Team : public Runner {
 public:
  explicit Team(int members) : caller_(std::this_thread::get_id()), members_(members) {
    run = [](Runner* self, int64_t tasks, TaskFunction function, void* context) {
      static_cast<Team*>(self)->run_step(tasks, function, context);
    };
    threads = [](const Runner* self) { return static_cast<const Team*>(self)->members_; };
  }

  // The part of a thread that the pool has sent: the caller's is `body`, the others' to serve.
  void take_part(void (*body)(void*, Runner&), void* context) {
    const DenormalsAsZeros mode;
    if (std::this_thread::get_id() != caller_) {
      serve();
    } else if (!over_.load(std::memory_order_relaxed)) {
      body(context, *this);
      over_.store(true);
      wake_sleepers();
    }
  }

 private:
  // Pauses of a member that waits for the next step before it sleeps: longer than the steps that
  // the caller computes alone, shorter than a time slice.
  static constexpr int kSpins = 4000;

  void run_step(int64_t tasks, TaskFunction function, void* context) {
    if (members_ == 1 || tasks < 2 || tasks > UINT32_MAX) {
      for (int64_t task = 0; task < tasks; ++task) function(context, task);
      return;
    }
    // For members that have arrived. One that comes later takes from the ends of these.
    const int64_t shares = std::min<int64_t>(tasks, present());
    function_ = function;
    context_ = context;
    ended_.store(0, std::memory_order_relaxed);
    const int64_t each = tasks / shares, more = tasks % shares;
    // From here on a member that still looks for tasks of the step before may claim these: who
    // claims one has seen the function that was set before.
    int64_t begin = 0;
    for (int64_t i = 0; i < shares; ++i) {
      const int64_t end = begin + each + (i < more);
      shares_[i].set(static_cast<uint32_t>(begin), static_cast<uint32_t>(end));
      begin = end;
    }
    step_.fetch_add(1);
    if (sleepers_.load() != 0) wake_sleepers();
    help(0);
    for (int spins = 0; ended_.load(std::memory_order_acquire) != tasks; ++spins) {
      if (spins < kSpins)
        pause_cpu();
      else
        std::this_thread::yield();
    }
  }

  // The members that have arrived.
  int present() const { return present_.load(std::memory_order_acquire); }

  // Claims and runs tasks until none is left.
  void help(int index) {
    int64_t ended = 0;
    for (int64_t task; (task = shares_[index].claim_first()) >= 0; ++ended)
      function_(context_, task);
    const int shares = present();
    for (int i = 1; i < shares; ++i) {
      Share& other = shares_[(index + i) % shares];
      for (int64_t task; (task = other.claim_last()) >= 0; ++ended) function_(context_, task);
    }
    if (ended != 0) ended_.fetch_add(ended, std::memory_order_release);
  }

  void serve() {
    const int index = present_.fetch_add(1, std::memory_order_acq_rel);
    uint64_t seen = 0;
    while (!over_.load()) {
      const uint64_t step = next_step(seen);
      if (step == seen) break;
      seen = step;
      help(index);
    }
  }

  // The number of a step after `seen`, or `seen` where the call is over.
  uint64_t next_step(uint64_t seen) {
    for (int spin = 0; spin < kSpins; ++spin) {
      const uint64_t step = step_.load(std::memory_order_acquire);
      if (step != seen) return step;
      if (over_.load(std::memory_order_relaxed)) return seen;
      pause_cpu();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    condition_.wait(lock, [&] { return step_.load() != seen || over_.load(); });
    sleepers_.fetch_sub(1);
    return step_.load();
  }

  void wake_sleepers() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }
    condition_.notify_all();
  }

  const std::thread::id caller_;
  const int members_;
  TaskFunction function_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint64_t> step_{0};
  std::atomic<bool> over_{false};
  alignas(64) std::atomic<int64_t> ended_{0};
  alignas(64) std::atomic<int> present_{1};  // the caller, and those that serve
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable condition_;
  Share shares_[kMaxThreads];
};

struct Call {
  Team team;
  void (*body)(void*, Runner&);
  void* context;
};

}  // namespace

void run_as_team(void (*body)(void* context, Runner& runner), void* context) {
  // A task for each member, by one look at the number of threads, which may change meanwhile: a
  // thread with nothing to serve would take the next task, maybe the caller's.
  const int members = num_threads();
  Call call{Team(members), body, context};
  Runner& threads = pool();
  threads.run(
      &threads, members,
      [](void* argument, int64_t) {
        Call& here = *static_cast<Call*>(argument);
        here.team.take_part(here.body, here.context);
      },
      &call);
}

}  // namespace sepconv::program
