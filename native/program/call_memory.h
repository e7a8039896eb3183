// Memory for a while, from the cache of workspaces.
#pragma once
#include "../memory.h"

namespace sepconv::program {

// The memory goes back to the cache when this object ends, also after an error.
class CallMemory {
 public:
  explicit CallMemory(int64_t bytes) : allocation_(take_workspace(static_cast<size_t>(bytes))) {}
  ~CallMemory() { give_workspace(allocation_); }
  CallMemory(const CallMemory&) = delete;
  CallMemory& operator=(const CallMemory&) = delete;
  char* get() const { return static_cast<char*>(allocation_.memory); }

 private:
  const Allocation allocation_;
};

}  // namespace sepconv::program
