// A flag that one thread at a time may have, and that nobody waits for: a child of fork() may have
// it taken for ever, by a thread that it does not have.
#pragma once
#include <atomic>

#include "pause.h"

namespace sepconv {

// Takes the flag while it lives, if it can in so many tries.
class Turn {
 public:
  explicit Turn(std::atomic_flag& taken, int tries = 1) : taken_(taken) {
    while (!(mine_ = !taken_.test_and_set(std::memory_order_acquire)) && --tries > 0) pause_cpu();
  }
  ~Turn() {
    if (mine_) taken_.clear(std::memory_order_release);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  explicit operator bool() const { return mine_; }

 private:
  std::atomic_flag& taken_;
  bool mine_ = false;
};

}  // namespace sepconv
