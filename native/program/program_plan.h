// A plan: a program made for inputs of certain shapes. What runs, in which order, and where every
// value lies.
#pragma once
#include <memory>
#include <vector>

#include "group.h"
#include "program.h"

namespace sepconv::program {

struct Program::Plan {
  std::vector<Shape> inputs;
  // Of every value; for a value with a place of its own, `offset` is where it lies in the arena.
  struct Value {
    Shape shape;
    enum class Place { input, arena, output, constant } place;
    // Between the steps of the group: there is memory for as many images as go together.
    bool grouped = false;
    int64_t bytes = 0;
    int64_t image = 0;           // bytes of one image, where the group reads or writes it
    int64_t offset = 0;          // in the arena
    int index = -1;              // of the input or output
    const void* data = nullptr;  // of a constant
  };
  std::vector<Value> values;
  std::vector<std::unique_ptr<Call>> calls;    // of the steps, for the whole batch
  std::vector<std::unique_ptr<Call>> chains;   // of several steps each
  Group group;                                 // of steps that a few images at a time go through
  int64_t rounds = 1;                          // how often these steps run for all images
  std::vector<std::unique_ptr<Call>> grouped;  // the group's calls, for a few images
  // What is computed, one after the other: a step's call, or a chain, whose step is its last.
  struct Run {
    const Call* call;
    std::vector<int> inputs;  // values
    int first, step;          // of the steps that it computes; the same where that is one
  };
  std::vector<Run> runs;
  // Outputs that are no step's own result: copied at the end.
  struct Copy {
    int value, output;
  };
  std::vector<Copy> copies;
  int64_t arena = 0, naive = 0;  // bytes; see MemoryUse

  // What runs for a step.
  const Call& call_of(int step) const {
    return group.has(step) ? *grouped[static_cast<size_t>(step - group.first)]
                           : *calls[static_cast<size_t>(step)];
  }
};

}  // namespace sepconv::program
