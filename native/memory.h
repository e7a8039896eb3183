// Scratch memory of threads and workspaces of calls.
#pragma once
#include <cstddef>
#include <cstdint>

#include "threads.h"

namespace sepconv {

// As Runner::run, with `scratch_bytes` of 64-byte aligned memory for each task, which is the running
// thread's own and kept by it for the next call. Throws std::bad_alloc where it cannot be had.
using ScratchTaskFunction = void (*)(void* context, int64_t task, void* scratch);
void run_with_scratch(Runner& runner, int64_t tasks, size_t scratch_bytes,
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
