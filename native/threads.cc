// The thread pool, and the runner over an engine's threads.
#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "pause.h"
#include "tuning.h"

#if defined(__linux__)
#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace sepconv {
namespace {

// One call of run(). Threads may look at it after run() has returned, so its references are
// counted.
//
// Each participant (a thread at work on the job) has a share of its own: consecutive tasks, fixed
// in advance. So a call on the same data, or the next layer on this one's result, finds that data
// in the same core's cache. A participant that has finished its share takes tasks from the ends of
// the others'.
class Job {
 public:
  Job(int64_t tasks, int participants, TaskFunction function, void* context)
      : tasks_(tasks),
        shares_(participants < tuning::kMostShares ? participants : tuning::kMostShares),
        function_(function),
        context_(context) {
    const int64_t each = tasks / shares_, more = tasks % shares_;
    int64_t first = 0;
    for (int i = 0; i < shares_; ++i) {
      const int64_t count = each + (i < more);
      share_[i].first = first;
      share_[i].left.store(count, std::memory_order_relaxed);
      share_[i].end.store(first += count, std::memory_order_relaxed);
    }
  }

  // Works through tasks until none is left to claim. No two participants have the same index; the
  // caller's is 0.
  void help(int index) {
    int64_t ended = 0;
    if (index < shares_) {
      Share& own = share_[index];
      for (int64_t task = own.first; claim(own); ++task, ++ended) function_(context_, task);
    }
    for (int i = 1; i <= shares_; ++i) {
      Share& other = share_[(index + i) % shares_];
      for (; claim(other); ++ended)
        function_(context_, other.end.fetch_sub(1, std::memory_order_relaxed) - 1);
    }
    if (ended != 0) ended_.fetch_add(ended, std::memory_order_release);
  }

  // The index of a participant that has none yet.
  int arrive() { return arrived_.fetch_add(1, std::memory_order_relaxed); }

  // Waits for tasks that other threads have claimed; those threads are running them, so this
  // never waits for a thread to become free.
  void wait() {
    for (int spins = 0; ended_.load(std::memory_order_acquire) != tasks_; ++spins) {
      if (spins < 4096)
        pause_cpu();
      else
        std::this_thread::yield();
    }
  }

  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> left;  // tasks not yet claimed
    std::atomic<int64_t> end;   // other participants take tasks from here, downwards
    int64_t first;              // its owner takes tasks from here, upwards
  };

  static bool claim(Share& share) {
    int64_t left = share.left.load(std::memory_order_relaxed);
    while (left > 0)
      if (share.left.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) return true;
    return false;
  }

  const int64_t tasks_;
  const int shares_;
  const TaskFunction function_;
  void* const context_;
  alignas(64) std::atomic<int64_t> ended_{0};
  std::atomic<int> references_{1};
  std::atomic<int> arrived_{1};
  Share share_[tuning::kMostShares];
};

void run_alone(int64_t tasks, TaskFunction function, void* context) {
  for (int64_t task = 0; task < tasks; ++task) function(context, task);
}

int available_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : static_cast<int>(count);
}

int initial_threads() {
  const char* text = std::getenv("SEPCONV_NUM_THREADS");
  if (text != nullptr && *text != '\0') {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*end != '\0' || value < 1 || value > kMaxThreads)
      throw std::invalid_argument("SEPCONV_NUM_THREADS must be an integer from 1 to " +
                                  std::to_string(kMaxThreads) +
                                  ". Received: SEPCONV_NUM_THREADS=" + text);
    return static_cast<int>(value);
  }
  const int processors = available_processors();
  return processors < kMaxThreads ? processors : kMaxThreads;
}

std::atomic<int>& thread_bound() {
  static std::atomic<int> bound{initial_threads()};
  return bound;
}

// GOMP_parallel(function, argument, threads, flags): calls function(argument) on each of `threads`
// threads, the caller among them, and returns when all have returned. Part of libgomp's stable ABI,
// since compilers call it for `#pragma omp parallel`.
using OpenMpParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
std::atomic<OpenMpParallel> openmp_parallel{nullptr};

// The processor that the calling thread runs on, or -1.
int current_processor() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// Moves the calling thread to another processor, if the process may use one. The scheduler can put
// a woken worker on the processor of its busy caller and leave it there while another is idle,
// since it holds threads that ran a moment ago not worth moving.
void leave_processor(int processor) {
#if defined(__linux__)
  cpu_set_t set;
  if (processor < 0 || processor >= CPU_SETSIZE) return;
  // The main thread's processors stand for the process's.
  if (sched_getaffinity(getpid(), sizeof set, &set) != 0) return;
  CPU_CLR(static_cast<size_t>(processor), &set);
  if (CPU_COUNT(&set) > 0) sched_setaffinity(0, sizeof set, &set);
#else
  (void)processor;
#endif
}

// A job on the threads of an OpenMP runtime, the caller one of them.
struct OpenMpRun {
  Job job;
  std::thread::id caller;

  static void help(void* argument) {
    auto* self = static_cast<OpenMpRun*>(argument);
    self->job.help(std::this_thread::get_id() == self->caller ? 0 : self->job.arrive());
  }
};

class Pool : public Runner {
 public:
  Pool() {
    run = &Pool::run_tasks;
    threads = [](const Runner*) { return num_threads(); };
  }

 private:
  static void run_tasks(Runner* self, int64_t tasks, TaskFunction function, void* context) {
    static_cast<Pool*>(self)->run_here(tasks, function, context);
  }

  void run_here(int64_t tasks, TaskFunction function, void* context) {
    const int bound = num_threads();
    const OpenMpParallel parallel = openmp_parallel.load(std::memory_order_relaxed);
    if (parallel != nullptr && tasks > 1 && bound > 1) {
      const int threads = static_cast<int>(tasks < bound ? tasks : bound);
      OpenMpRun call{Job(tasks, threads, function, context), std::this_thread::get_id()};
      parallel(&OpenMpRun::help, &call, static_cast<unsigned>(threads), 0);
      return;
    }
    // The caller runs its tasks alone while the pool works for another caller, or for a call of
    // this thread further up its stack.
    std::unique_lock<std::mutex> turn(turn_, std::defer_lock);
    if (tasks <= 1 || bound == 1 || !turn.try_lock()) {
      run_alone(tasks, function, context);
      return;
    }
    const int helpers = static_cast<int>(tasks < bound ? tasks : bound) - 1;
    ensure_workers(helpers);
    Job* job = new (std::nothrow) Job(tasks, helpers + 1, function, context);
    if (job == nullptr) {
      run_alone(tasks, function, context);
      return;
    }
    bool wake;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = job;
      helpers_ = helpers;
      caller_processor_ = current_processor();
      wake = parked_ > 0;
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (wake) condition_.notify_all();
    job->help(0);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = nullptr;
    }
    job->wait();
    job->release();
  }

  void ensure_workers(int wanted) {
    while (workers_ < wanted) {
      try {
        std::thread([this, index = workers_] { work(index); }).detach();
      } catch (const std::system_error&) {
        return;  // the caller runs the tasks of the missing threads
      }
      ++workers_;
    }
  }

  void work(int index) {
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < tuning::kIdlePauses; ++spin) {
        if (generation_.load(std::memory_order_acquire) != seen) break;
        pause_cpu();
      }
      Job* job = nullptr;
      int caller = -1;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        ++parked_;
        condition_.wait(lock, [&] { return generation_.load() != seen; });
        --parked_;
        seen = generation_.load();
        caller = caller_processor_;
        if (job_ != nullptr && index < helpers_) {
          job = job_;
          job->retain();
        }
      }
      // Even where the job has ended already: the caller may have kept this worker from running.
      if (caller >= 0 && caller == current_processor()) leave_processor(caller);
      if (job != nullptr) {
        job->help(index + 1);
        job->release();
      }
    }
  }

  std::mutex turn_;  // held by the caller whose job the pool runs
  std::mutex mutex_;
  std::condition_variable condition_;
  std::atomic<uint64_t> generation_{0};
  Job* job_ = nullptr;
  int helpers_ = 0;
  int caller_processor_ = -1;
  int parked_ = 0;
  int workers_ = 0;  // guarded by turn_
};

std::atomic<Pool*> the_pool{nullptr};

// After fork() the child has no workers and maybe a locked mutex: it starts over with a new pool of
// our own. An OpenMP runtime would wait for its lost threads.
void forget_pool_in_child() {
  the_pool.store(nullptr, std::memory_order_relaxed);
  openmp_parallel.store(nullptr, std::memory_order_relaxed);
}

}  // namespace

Runner& pool() {
  Pool* existing = the_pool.load(std::memory_order_acquire);
  if (existing != nullptr) return *existing;
#if !defined(_WIN32)
  static const int registered = pthread_atfork(nullptr, nullptr, &forget_pool_in_child);
  (void)registered;
#endif
  Pool* fresh = new Pool;  // never destroyed: workers may outlive every static object
  if (the_pool.compare_exchange_strong(existing, fresh)) return *fresh;
  delete fresh;
  return *existing;
}

bool adopt_openmp(const char* library) {
#if defined(__linux__)
  pool();  // registers what happens after fork()
  void* handle = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
  if (handle == nullptr) return false;
  void* symbol = dlsym(handle, "GOMP_parallel");
  if (symbol == nullptr) return false;
  openmp_parallel.store(reinterpret_cast<OpenMpParallel>(symbol), std::memory_order_relaxed);
  return true;
#else
  (void)library;
  return false;
#endif
}

int num_threads() { return thread_bound().load(std::memory_order_relaxed); }

void set_num_threads(int count) {
  if (count < 1 || count > kMaxThreads)
    throw std::invalid_argument("count must be from 1 to " + std::to_string(kMaxThreads) +
                                ". Received: count=" + std::to_string(count));
  thread_bound().store(count, std::memory_order_relaxed);
}

ExternalRunner external_runner(void* pool, void (*schedule)(void*, void (*)(void*), void*),
                               int most) {
  ExternalRunner runner;
  runner.pool = pool;
  runner.schedule = schedule;
  runner.most = most;
  runner.threads = [](const Runner* base) {
    const int wanted = static_cast<const ExternalRunner*>(base)->most, bound = num_threads();
    return wanted < bound ? wanted : bound;
  };
  runner.run = [](Runner* base, int64_t tasks, TaskFunction function, void* context) {
    auto* self = static_cast<ExternalRunner*>(base);
    int64_t helpers = self->concurrency();
    if (helpers > tasks) helpers = tasks;
    Job* job = nullptr;
    if (helpers > 1)
      job = new (std::nothrow) Job(tasks, static_cast<int>(helpers), function, context);
    if (job == nullptr) {
      run_alone(tasks, function, context);
      return;
    }
    for (int64_t i = 1; i < helpers; ++i) {
      job->retain();
      self->schedule(
          self->pool,
          [](void* argument) {
            Job* scheduled = static_cast<Job*>(argument);
            scheduled->help(scheduled->arrive());
            scheduled->release();
          },
          job);
    }
    job->help(0);
    job->wait();
    job->release();
  };
  return runner;
}

}  // namespace sepconv
