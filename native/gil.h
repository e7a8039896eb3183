// Lets other Python threads run while a kernel computes.
#pragma once
#include <nanobind/nanobind.h>

#include <chrono>
#include <thread>

namespace sepconv {

// As nanobind's gil_scoped_release, but safe for a thread that returns after the interpreter has
// begun to end. Before 3.14 Python ends such a thread by pthread_exit(), which unwinds the stack
// with an exception of its own, through destructors that may not throw: the process would abort.
// Here the thread waits instead until the process is gone, as Python itself makes it from 3.14 on.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* const state_;
};

}  // namespace sepconv
