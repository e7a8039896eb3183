// What the steps of int8 inference share: how their attributes are read.
#pragma once
#include <cmath>
#include <string>

#include "step.h"

namespace sepconv::program {

inline int32_t byte(Attributes& attributes, const char* name) {
  return static_cast<int32_t>(attributes.integer(name, 0, 255));
}

inline float finite(Attributes& attributes, const char* name) {
  const float value = static_cast<float>(attributes.number());
  if (!std::isfinite(value)) fail(std::string(name) + " must be a finite float32.");
  return value;
}

// lower and upper, in this order.
template <class To>
void read_bounds(Attributes& attributes, To& to) {
  to.lower = byte(attributes, "lower");
  to.upper = byte(attributes, "upper");
  if (to.lower > to.upper)
    fail("lower must be at most upper. Received: " + std::to_string(to.lower) + " and " +
         std::to_string(to.upper) + ".");
}

}  // namespace sepconv::program
