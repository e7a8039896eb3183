// Runners to hand to the kernels: the pool, and others that order and place tasks differently.
#pragma once
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "../../native/threads.h"

namespace test {

// Tasks in reverse, on the caller: whatever depends on their order shows.
struct ReverseRunner : sepconv::Runner {
  ReverseRunner() {
    run = [](sepconv::Runner*, int64_t tasks, sepconv::TaskFunction function, void* context) {
      for (int64_t task = tasks - 1; task >= 0; --task) function(context, task);
    };
    threads = [](const sepconv::Runner*) { return 1; };
  }
};

// An engine's thread pool in small: jobs in a queue, which may run late.
class EngineThreads {
 public:
  explicit EngineThreads(int count) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this] { work(); });
  }
  ~EngineThreads() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ending_ = true;
    }
    condition_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  sepconv::ExternalRunner runner(int most) {
    return sepconv::external_runner(
        this,
        [](void* self, void (*job)(void*), void* argument) {
          auto& pool = *static_cast<EngineThreads*>(self);
          {
            std::lock_guard<std::mutex> lock(pool.mutex_);
            pool.jobs_.push_back({job, argument});
          }
          pool.condition_.notify_one();
        },
        most);
  }

 private:
  struct Job {
    void (*function)(void*);
    void* argument;
  };
  void work() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      condition_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      const Job job = jobs_.front();
      jobs_.pop_front();
      lock.unlock();
      job.function(job.argument);
    }
  }
  std::mutex mutex_;
  std::condition_variable condition_;
  std::deque<Job> jobs_;
  std::vector<std::thread> threads_;
  bool ending_ = false;
};

}  // namespace test
