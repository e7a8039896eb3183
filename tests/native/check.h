// Checks that count: a failed one is printed and the program goes on.
#pragma once
#include <atomic>
#include <cstdio>

namespace test {

inline std::atomic<long> passed{0};
inline std::atomic<long> failed{0};

inline bool check(bool holds, const char* text, const char* file, int line) {
  if (holds) {
    passed.fetch_add(1, std::memory_order_relaxed);
  } else if (failed.fetch_add(1, std::memory_order_relaxed) < 20) {
    std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
  }
  return holds;
}

}  // namespace test

#define CHECK(...) ::test::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

// The type and the whole message matter, since users read it.
#define CHECK_THROWS(expression, type, part)                                           \
  do {                                                                                 \
    bool caught = false;                                                               \
    try {                                                                              \
      (void)(expression);                                                              \
    } catch (const type& error) {                                                      \
      caught = std::string(error.what()).find(part) != std::string::npos;              \
    }                                                                                  \
    ::test::check(caught, #expression " throws " #type ": " part, __FILE__, __LINE__); \
  } while (false)
