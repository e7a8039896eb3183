// The gradients of the activations, as PyTorch has them where an activation bends.
#pragma once
#include "functions.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// Calls f.operator()<activation>().
template <class F>
void with_activation(Activation activation, const F& f) {
  switch (activation) {
    case Activation::none:
      return f.template operator()<Activation::none>();
    case Activation::relu:
      return f.template operator()<Activation::relu>();
    case Activation::relu6:
      return f.template operator()<Activation::relu6>();
    case Activation::hard_silu:
      return f.template operator()<Activation::hard_silu>();
    case Activation::silu:
      return f.template operator()<Activation::silu>();
  }
}

template <class T, Activation kActivation>
inline Vec<T> activated(Vec<T> v) {
  return activate_fully<T>(v, kActivation);
}

// The gradient of v, from that of activated(v). A gradient of NaN or infinity is 0 where the
// activation is constant.
template <class T, Activation kActivation>
inline Vec<T> activation_gradient(Vec<T> dy, Vec<T> v) {
  if constexpr (kActivation == Activation::none) {
    return dy;
  } else if constexpr (kActivation == Activation::relu) {
    return v <= zero<T>() ? zero<T>() : dy;
  } else if constexpr (kActivation == Activation::relu6) {
    return ((v <= zero<T>()) | (v >= broadcast<T>(6))) ? zero<T>() : dy;
  } else if constexpr (kActivation == Activation::hard_silu) {
    const Vec<T> bent = v < broadcast<T>(3) ? dy * (v * T(1.0 / 3) + T(0.5)) : dy;
    return v <= broadcast<T>(-3) ? zero<T>() : bent;
  } else {
    const Vec<T> gate = sigmoid_of<T>(v);
    return dy * (gate * (v * (T(1) - gate) + T(1)));
  }
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
