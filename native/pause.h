// Tells the processor that a loop waits, so that it lets its sibling thread work.
#pragma once

namespace sepconv {

inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace sepconv
