// The native test program: every section on every instruction-set level that runs here.
//
//   sepconv_native_test [effort]     effort: how much is tried, 1 as a rule, may be 0.1
//
// Each level runs in a child, since a process chooses its level once.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

#include "../../native/dispatch.h"
#include "check.h"
#include "levels.h"
#include "sections.h"

namespace {

// A level that runs here and is not in kLevels would never be tested: an error names those that
// run.
void check_list(const std::string& error) {
  const std::string before = "that run here: ";
  const size_t first = error.find(before) + before.size();
  std::string names = error.substr(first, error.find(". Received") - first) + ", ";
  for (size_t end; (end = names.find(", ")) != std::string::npos; names.erase(0, end + 2)) {
    const std::string name = names.substr(0, end);
    if (!CHECK(std::ranges::find(test::kLevels, name) != std::end(test::kLevels)))
      std::fprintf(stderr, "  %s\n", name.c_str());
  }
}

// ThreadSanitizer cannot follow threads that a forked child starts, and AddressSanitizer's
// allocator may be locked by a thread that the child does not have.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define TEST_NO_FORK 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define TEST_NO_FORK 1
#endif
#endif

void run_sections(double effort) {
  const auto times = [&](int count) { return 1 + static_cast<int>(count * effort); };
  test::check_geometry();
  test::check_plans();
  test::check_huge_pages();
  test::check_values(times(600));
  test::check_halves();
  test::check_conflicts(times(60));
  test::check_turned(times(100));
  test::check_pointwise(times(300));
  test::check_products(times(300));
  test::check_half_products();
  test::check_half_steps(times(300));
  test::check_int8(times(600));
  test::check_int8_arrays(times(100));
  test::check_batch_norm(times(150));
  test::check_normalized(times(100));
  test::check_programs(times(12));
  test::check_elementwise(times(12));
  test::check_arrays(times(150));
  test::check_narrow_arrays(times(60));
  test::check_threads(times(100));
#if !defined(TEST_NO_FORK)
  test::check_fork(times(20));
#endif
}

// What a child found, passed on in a pipe.
struct Counts {
  long passed, failed;
  bool runs_here;
};

Counts run_level(const char* level, double effort) {
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  const pid_t child = fork();
  if (child == 0) {
    setenv("SEPCONV_ISA", level, 1);
    Counts counts{0, 0, true};
    try {
      CHECK(std::string(sepconv::isa_name()) == level);
    } catch (const std::invalid_argument& error) {
      CHECK(std::string(error.what()).find("must be one of the levels that run here") !=
            std::string::npos);
      check_list(error.what());
      counts.runs_here = false;
    }
    if (counts.runs_here) run_sections(effort);
    counts.passed = test::passed;
    counts.failed = test::failed;
    if (write(ends[1], &counts, sizeof counts) != sizeof counts) std::abort();
    std::exit(0);  // sanitizers report at the end
  }
  close(ends[1]);
  Counts counts{0, 1, true};
  if (read(ends[0], &counts, sizeof counts) != sizeof counts) counts = {0, 1, true};
  close(ends[0]);
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) {
    std::fprintf(stderr, "%s: ended with status %#x\n", level, static_cast<unsigned>(status));
    ++counts.failed;
  }
  return counts;
}

}  // namespace

int main(int argc, char** argv) {
  const double effort = argc > 1 ? std::atof(argv[1]) : 1;
  for (const char* wrong : {"mmx", "x86-64-v9", "avx2", " "}) {
    setenv("SEPCONV_ISA", wrong, 1);
    CHECK_THROWS(sepconv::isa_name(), std::invalid_argument, "SEPCONV_ISA must be one of");
  }
  test::check_levels();
  long passed = test::passed, failed = test::failed;
  int levels = 0, skipped = 0;
  for (const char* level : test::kLevels) {
    const Counts counts = run_level(level, effort);
    passed += counts.passed;
    failed += counts.failed;
    if (!counts.runs_here) {
      ++skipped;
      continue;
    }
    ++levels;
    std::printf("%s: %ld passed, %ld failed\n", level, counts.passed, counts.failed);
    std::fflush(stdout);
  }
  if (levels == 0) ++failed;
  std::printf("%ld passed, %ld failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 ? 0 : 1;
}
