// Calls from many threads at once, while the number of threads changes, and across fork().
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "check.h"
#include "run.h"
#include "runners.h"
#include "sections.h"

namespace test {
namespace {

// A problem of each kind of work, with the results that every later call must repeat to the bit.
struct Known {
  Problem problem;
  Inputs<float> in;
  Results<float> results;
};

std::vector<Known> known_problems() {
  std::vector<Known> all;
  Buffers buffers;
  std::string why;
  ReverseRunner alone;
  for (uint32_t seed = 0; all.size() < 8; ++seed) {
    Problem p = random_problem(seed);
    if (p.g.n == 0 || p.products() < 20000 || p.dtype != sepconv::DType::f32) continue;
    p.numbers = Numbers::ordinary;
    Inputs<float> in = make_inputs<float>(p);
    Results<float> results = run(p, in, alone, buffers, &why);
    all.push_back({p, std::move(in), std::move(results)});
  }
  CHECK(why.empty());
  return all;
}

bool repeats(const Known& known, sepconv::Runner& runner, Buffers& buffers) {
  std::string why;
  return run(known.problem, known.in, runner, buffers, &why).same_bits(known.results) &&
         why.empty();
}

}  // namespace

void check_threads(int rounds) {
  const std::vector<Known> known = known_problems();
  EngineThreads engine(2);
  std::atomic<bool> ending{false};
  std::thread changes([&] {
    for (int count = 1; !ending; count = count % 8 + 1) {
      sepconv::set_num_threads(count);
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> callers;
  for (int id = 0; id < 8; ++id)
    callers.emplace_back([&, id] {
      Buffers buffers;
      sepconv::ExternalRunner external = engine.runner(3);
      for (int round = 0; round < rounds; ++round) {
        const Known& k = known[static_cast<size_t>(id + round) % known.size()];
        sepconv::Runner& runner = (id + round / 8) % 4 == 0 ? external : sepconv::pool();
        CHECK(repeats(k, runner, buffers));
      }
    });
  for (auto& caller : callers) caller.join();
  ending = true;
  changes.join();
  sepconv::set_num_threads(3);
}

void check_fork(int forks) {
  const std::vector<Known> known = known_problems();
  sepconv::set_num_threads(3);
  std::atomic<bool> ending{false};
  std::thread busy([&] {  // the pool is at work, and maybe locked, at the moment of each fork
    Buffers buffers;
    bool all = true;
    for (size_t i = 0; !ending; ++i)
      all = repeats(known[i % known.size()], sepconv::pool(), buffers) && all;
    CHECK(all);
  });
  Buffers buffers;
  for (int i = 0; i < forks; ++i) {
    const Known& k = known[static_cast<size_t>(i) % known.size()];
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);  // a child that hangs is ended, and seen
      _exit(repeats(k, sepconv::pool(), buffers) ? 0 : 1);
    }
    int status = -1;
    if (!CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0))
      std::fprintf(stderr, "  the child's status: %#x\n", static_cast<unsigned>(status));
    CHECK(repeats(k, sepconv::pool(), buffers));
  }
  ending = true;
  busy.join();
}

}  // namespace test
