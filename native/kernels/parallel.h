// Runs a lambda over tasks, each with scratch memory; and workspaces, memory for a whole call.
#pragma once
#include "../memory.h"
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Calls f(task, scratch, kept) for every task. `scratch` has room for `elements` of T; `kept` has
// room for `kept_elements`, which stay from one of a thread's tasks to the next.
template <class T, class F>
void parallel_keeping(Runner& runner, int64_t tasks, int64_t elements, int64_t kept_elements,
                      const F& f) {
  if (tasks <= 0) return;
  struct Call {
    const F* function;
  } call{&f};
  run_with_scratch(
      runner, tasks,
      {static_cast<size_t>(elements) * sizeof(T), static_cast<size_t>(kept_elements) * sizeof(T)},
      [](void* context, int64_t task, void* scratch, Kept* kept) {
        (*static_cast<Call*>(context)->function)(task, static_cast<T*>(scratch), kept);
      },
      &call);
}

// A thread's kept memory, filled by fill(memory) at the thread's first task of a call. The content
// must be the same for all tasks.
template <class T, class F>
const T* filled_once(Kept* kept, const F& fill) {
  T* const memory = static_cast<T*>(kept->memory);
  if (kept->content < 0) fill(memory);
  kept->content = 0;
  return memory;
}

// parallel_keeping() without kept memory.
template <class T, class F>
void parallel(Runner& runner, int64_t tasks, int64_t elements, const F& f) {
  parallel_keeping<T>(runner, tasks, elements, 0,
                      [&f](int64_t task, T* scratch, Kept*) { f(task, scratch); });
}

// Memory for one call, shared by its tasks.
template <class T>
class Workspace {
 public:
  explicit Workspace(int64_t elements) : memory_{nullptr, 0, 0} {
    if (elements > 0) memory_ = take_workspace(static_cast<size_t>(elements) * sizeof(T));
  }
  ~Workspace() {
    if (memory_.memory != nullptr) give_workspace(memory_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  T* get() const { return static_cast<T*>(memory_.memory); }

 private:
  Allocation memory_;
};

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
