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

// A call of the inputs [the first link's first input, then what `second` names], and the output of
// the last link; with strips of about so many bytes. The links' calls must outlive it.
// `first_input` is that of the first link, whose elements have `first_item` bytes.
std::unique_ptr<Call> make_chain(std::vector<Link> links, const Shape& first_input,
                                 int64_t first_item, int64_t strip_bytes);

}  // namespace sepconv::program
