// The forward pass of any convolution, of tensors of S.
#pragma once
#include "patches.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class S>
void depthwise_forward_all(const Geometry& g, const Forward& args, Runner& runner) {
  const int64_t channels = g.c * g.m;
  const RealValues<S> kernel(static_cast<const S*>(args.depthwise_kernel), g.kh * g.kw * channels);
  const RealValues<S> bias(static_cast<const S*>(args.bias), channels);
  depthwise_forward<S>(g, static_cast<const S*>(args.x), kernel.get(), bias.get(), args.activation,
                       static_cast<S*>(args.y), runner, args.overrule.kernel);
}

template <class S>
void forward_all(const Geometry& g, const Forward& args, Runner& runner) {
  if (args.depthwise_kernel == nullptr)
    patches_forward<S>(g, args, runner);
  else if (args.mixes())
    separable_forward<S>(g, args, runner);
  else
    depthwise_forward_all<S>(g, args, runner);
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
