// A team: threads that stay together for a whole call of a program, from step to step.
#pragma once
#include "../threads.h"

namespace sepconv::program {

// Calls body(context, runner) once, on the calling thread, with a runner over a team of up to
// num_threads() of the pool's threads. A step starts and ends by a few atomic operations: between
// steps the other members spin for a short while, and then sleep. A thread that comes late joins at
// the next step. Where the pool is at work for another caller, the caller is alone. All members
// take denormal numbers for zeros (denormals.h).
SEPCONV_API void run_as_team(void (*body)(void* context, Runner& runner), void* context);

}  // namespace sepconv::program
