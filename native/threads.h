// A Runner runs numbered tasks in parallel, on our own thread pool or on an engine's threads.
#pragma once
#include <cstdint>

#include "api.h"

namespace sepconv {

using TaskFunction = void (*)(void* context, int64_t task);

// Function pointers instead of virtual functions: an inline function that a file for a higher
// instruction set had compiled could be the copy that the linker keeps for all files.
struct Runner {
  // Calls function(context, t) once for every t in [0, tasks), in any order and on any threads,
  // and returns when all have ended. `function` does not throw.
  void (*run)(Runner* self, int64_t tasks, TaskFunction function, void* context);
  // The number of threads that run() uses at most, the caller included. It may decide how work is
  // cut, but never the order of a sum.
  int (*threads)(const Runner* self);

  int concurrency() const { return threads(this); }
};

inline constexpr int kMaxThreads = 256;

// Runs tasks on the caller and on up to num_threads() - 1 workers: our own threads, or those of an
// adopted OpenMP runtime.
SEPCONV_API Runner& pool();

// Lets pool() run on the threads of GNU's OpenMP runtime at `library`, which the process must have
// loaded already; false where it has not. For an engine that computes on those threads itself: they
// spin for milliseconds after each of its operations, and a second pool would wait for their cores.
SEPCONV_API bool adopt_openmp(const char* library);

// The most threads that a call uses: SEPCONV_NUM_THREADS, or where it is not set the number of
// processors that this process may use. The first call throws std::invalid_argument where that
// variable is not an integer from 1 to kMaxThreads.
SEPCONV_API int num_threads();
// Throws std::invalid_argument where `count` is not from 1 to kMaxThreads.
SEPCONV_API void set_num_threads(int count);

// A runner over an engine's own threads. `schedule(pool, job, argument)` asks the engine to call
// job(argument) soon on one of its threads; it may do so late or after run() has returned.
struct ExternalRunner : Runner {
  void* pool;
  void (*schedule)(void* pool, void (*job)(void*), void* argument);
  int most;  // threads to use, the caller included, but no more than num_threads()
};
SEPCONV_API ExternalRunner external_runner(void* pool,
                                           void (*schedule)(void*, void (*)(void*), void*),
                                           int most);

}  // namespace sepconv
