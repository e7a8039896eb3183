// Scratch memory for tasks, and workspaces (memory for a whole call).
#pragma once
#include <cstddef>
#include <cstdint>

#include "threads.h"

namespace sepconv {

// Memory that a thread keeps from task to task of one call.
struct Kept {
  void* memory;
  int64_t content;  // set by tasks to tell the thread's next task what is in it; at first -1
};

// Runs tasks as Runner::run does. A task gets `scratch` bytes of memory, and `kept` bytes that stay
// the same from one of its thread's tasks to the next; both are 64-byte aligned and reused for
// later calls. Where `kept` is 0, tasks get no Kept. Throws std::bad_alloc where memory cannot be
// had.
struct ScratchBytes {
  size_t scratch, kept;
};
using ScratchTaskFunction = void (*)(void* context, int64_t task, void* scratch, Kept* kept);
void run_with_scratch(Runner& runner, int64_t tasks, ScratchBytes bytes,
                      ScratchTaskFunction function, void* context);

// Memory of the running thread, for a task that calls what uses scratch memory itself; until the
// thread asks again. 64-byte aligned; null where memory cannot be had.
void* outer_scratch(size_t bytes);

// Memory for one call, aligned to 64 bytes at least. Up to 64 MiB of what is given back is kept for
// later calls; a larger allocation goes back to the system.
struct Allocation {
  void* memory;
  size_t bytes, alignment;
};
Allocation take_workspace(size_t bytes);  // throws std::bad_alloc
void give_workspace(Allocation allocation);

}  // namespace sepconv
