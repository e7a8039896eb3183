// A chain: steps that follow each other and go together by bands of rows, so that what lies between
// them stays in a core's cache.
#pragma once
#include <memory>
#include <vector>

#include "step.h"

namespace sepconv::program {

// A link of a chain: a call by rows, whose first input is the link's before.
struct Link {
  const Call* call;
  int64_t item;     // bytes of an element of its output
  int second = -1;  // the number, among the chain's inputs, of its second input
};

// Makes a chain one call. Its inputs are the first link's first input, and then those that `second`
// names; its output is that of the last link. The links' calls must outlive it. `first_input` is
// the shape of the first link's first input, `first_item` the bytes of an element of it, and
// `strip_bytes` about how many bytes all strips may have together.
std::unique_ptr<Call> make_chain(std::vector<Link> links, const Shape& first_input,
                                 int64_t first_item, int64_t strip_bytes);

}  // namespace sepconv::program
