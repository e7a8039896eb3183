// Loops that measure a processor's limits: multiply-adds on registers alone, and streams through
// memory. The benchmark compares every kernel with these.
#pragma once
#include "gemm_policy.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Independent sums, enough to hide the latency of a multiply-add with registers to spare.
inline constexpr int kChains = kRegisters == 32 ? 24 : 12;

// Does `rounds` multiply-adds on every lane of every chain and returns the number of operations,
// two for each. The result goes to `sink`, so that no compiler leaves the work out.
template <class T>
int64_t fma_burst(int64_t rounds, T* sink) {
  Vec<T> chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = broadcast<T>(static_cast<T>(i) + *sink);
  const Vec<T> factor = broadcast<T>(static_cast<T>(0.5) + *sink * 0);
  for (int64_t round = 0; round < rounds; ++round) {
// Without this, a compiler may keep the chains in memory.
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) chain[i] = chain[i] * factor + factor;
  }
  Vec<T> total = zero<T>();
  for (int i = 0; i < kChains; ++i) total += chain[i];
  *sink = sum<T>(total);
  return 2 * rounds * kChains * kLanes<T>;
}

// The same of what a product's policy adds up: as many multiply-adds a lane as it has steps.
template <class P>
int64_t product_burst(int64_t rounds, typename P::Sum* sink) {
  using Sum = typename P::Sum;
  typename P::A some[P::kSteps] = {};
  Vec<Sum> chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = broadcast<Sum>(static_cast<Sum>(i) + *sink);
  typename P::Steps steps = P::steps(some);
  Vec<typename P::B> b{};
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile("" : "+r"(steps));  // or a compiler adds nothing, knowing that it is nothing
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) {
      keep_in_register(b);  // or one multiplication serves all chains, where it is apart
      P::add(chain[i], steps, b);
    }
  }
  Vec<Sum> total = zero<Sum>();
  for (int i = 0; i < kChains; ++i) total += chain[i];
  *sink = sum<Sum>(total);
  return 2 * rounds * kChains * kLanes<Sum> * P::kSteps;
}

// Reads `count` elements, a multiple of 8 vectors.
template <class T>
void read_stream(const T* from, int64_t count, T* sink) {
  constexpr int kStreams = 8;
  Vec<T> chain[kStreams];
  for (int i = 0; i < kStreams; ++i) chain[i] = zero<T>();
  for (int64_t at = 0; at < count; at += kStreams * kLanes<T>)
    for (int i = 0; i < kStreams; ++i) chain[i] += load(from + at + i * kLanes<T>);
  Vec<T> total = zero<T>();
  for (int i = 0; i < kStreams; ++i) total += chain[i];
  *sink = sum<T>(total);
}

// Copies `count` elements, a multiple of 4 vectors.
template <class T>
void copy_stream(const T* from, T* to, int64_t count) {
  constexpr int kStreams = 4;
  for (int64_t at = 0; at < count; at += kStreams * kLanes<T>) {
    Vec<T> part[kStreams];
    for (int i = 0; i < kStreams; ++i) part[i] = load(from + at + i * kLanes<T>);
    for (int i = 0; i < kStreams; ++i) store(to + at + i * kLanes<T>, part[i]);
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
