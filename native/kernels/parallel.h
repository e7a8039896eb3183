// Runs a lambda over tasks, each with scratch memory; and whole-call workspaces.
#pragma once
#include "../memory.h"
#include "vec.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Calls f(task, scratch) for every task, scratch being room for `elements` of T.
template <class T, class F>
void parallel(Runner& runner, int64_t tasks, int64_t elements, F&& f) {
  if (tasks <= 0) return;
  struct Call {
    F* function;
  } call{&f};
  run_with_scratch(
      runner, tasks, static_cast<size_t>(elements) * sizeof(T),
      [](void* context, int64_t task, void* scratch) {
        (*static_cast<Call*>(context)->function)(task, static_cast<T*>(scratch));
      },
      &call);
}

// Memory for one call, shared by its tasks.
template <class T>
class Workspace {
 public:
  explicit Workspace(int64_t elements) : block_{nullptr, 0, 0} {
    if (elements > 0) block_ = take_workspace(static_cast<size_t>(elements) * sizeof(T));
  }
  ~Workspace() {
    if (block_.memory != nullptr) give_workspace(block_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  T* get() const { return static_cast<T*>(block_.memory); }

 private:
  Block block_;
};

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
