// Memory for weights that are kept: in large pieces on huge pages, since every call reads all of
// them, and each page of 4 KiB would cost a walk through the page tables.
#pragma once
#include <cstdint>
#include <vector>

namespace sepconv {

class WeightMemory {
 public:
  // `expected`: the bytes of all that will be taken, about; 0 where each is by itself.
  explicit WeightMemory(int64_t expected = 0) : expected_(expected) {}
  ~WeightMemory();
  WeightMemory(const WeightMemory&) = delete;
  WeightMemory& operator=(const WeightMemory&) = delete;

  // Memory aligned to 64 bytes, until this ends. Throws std::bad_alloc.
  void* take(int64_t bytes);
  // Of the pieces, used or not.
  int64_t bytes() const { return bytes_; }

 private:
  struct Piece {
    char* memory;
    int64_t bytes, alignment;
  };
  std::vector<Piece> pieces_;
  int64_t expected_, used_ = 0, bytes_ = 0;  // used: of the last piece
};

}  // namespace sepconv
