// Pieces of memory on huge pages.
#include "weight_memory.h"

#include <algorithm>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sepconv {
namespace {

constexpr int64_t kLine = 64, kHugePage = int64_t{2} << 20;

int64_t round_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

WeightMemory::~WeightMemory() {
  for (const Piece& piece : pieces_)
    ::operator delete(piece.memory, std::align_val_t{static_cast<size_t>(piece.alignment)});
}

void* WeightMemory::take(int64_t bytes) {
  bytes = round_up(std::max<int64_t>(bytes, 1), kLine);
  if (pieces_.empty() || pieces_.back().bytes - used_ < bytes) {
    const int64_t wanted = std::max(bytes, expected_ - bytes_);
    const int64_t unit = wanted >= kHugePage ? kHugePage : kLine;
    Piece piece{nullptr, round_up(wanted, unit), unit};
    pieces_.reserve(pieces_.size() + 1);
    piece.memory = static_cast<char*>(::operator new(static_cast<size_t>(piece.bytes),
                                                     std::align_val_t{static_cast<size_t>(unit)}));
#if defined(__linux__)
    if (unit == kHugePage)
      madvise(piece.memory, static_cast<size_t>(piece.bytes), MADV_HUGEPAGE);  // best effort
#endif
    pieces_.push_back(piece);
    bytes_ += piece.bytes;
    used_ = 0;
  }
  char* const memory = pieces_.back().memory + used_;
  used_ += bytes;
  return memory;
}

}  // namespace sepconv
