// Scratch memory of threads and workspaces of calls.
#pragma once
#include <cstddef>
#include <cstdint>

#include "threads.h"

namespace sepconv {

// Memory that a thread keeps from task to task of one call.
struct Kept {
  void* memory;
  int64_t content;  // what the tasks wrote down as being in it; -1 at the call's first task here
};

// As Runner::run, with 64-byte aligned memory of the running thread's own, which it keeps for the
// next call: `scratch` bytes for each task, and `kept` bytes that stay between a call's tasks.
// Where `kept` is 0, tasks get no Kept. Throws std::bad_alloc where memory cannot be had.
struct ScratchBytes {
  size_t scratch, kept;
};
using ScratchTaskFunction = void (*)(void* context, int64_t task, void* scratch, Kept* kept);
void run_with_scratch(Runner& runner, int64_t tasks, ScratchBytes bytes,
                      ScratchTaskFunction function, void* context);

// Memory for one call, 64-byte aligned at least. Up to 64 MiB of what is given back is kept for
// later calls; larger blocks go back to the system.
struct Block {
  void* memory;
  size_t bytes, alignment;
};
Block take_workspace(size_t bytes);  // throws std::bad_alloc
void give_workspace(Block block);

}  // namespace sepconv
