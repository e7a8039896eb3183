// The gradients of a convolution and the batch normalization after it, channels_last. What is
// between the two is never in memory as a whole: its gradient is made where a cache holds it until
// the convolution's gradients have read it.
#pragma once
#include "batch_norm.h"
#include "batch_parts.h"
#include "convolution.h"
#include "products.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

// How the pixels of a 1x1 convolution are cut: into groups with a partial sum of the kernel's
// gradient each, and these into tiles. As sums depend on it, nothing of it depends on the number of
// threads.
struct NormalizedPlan {
  Cut tiles;
  int64_t groups;
  // Too few pixels, or too large a kernel, for groups that keep threads busy: the two steps go one
  // after the other.
  bool apart() const { return groups < tuning::kNormalizedGroups; }
};

template <class T>
NormalizedPlan plan_normalized(int64_t pixels, int64_t channels, int64_t filters) {
  constexpr int64_t kBytes = sizeof(T);
  const int64_t most =
      group_count(pixels / tuning::kNormalizedGroupPixels, channels * filters * kBytes);
  int64_t groups = 1;
  while (2 * groups <= most) groups *= 2;
  const int64_t fit = tuning::kNormalizedTileBytes / (filters * kBytes);
  const int64_t tile = max_of(tuning::kTilePixels, min_of(kGradientPixels, fit));
  return {cut_into(pixels, round_up(ceil_div(pixels, tile), groups)), groups};
}

// Each task makes the gradient of what is between for a tile of pixels, and both products of it.
template <class T, Activation kActivation>
void normalized_product_gradients(const Pointwise& p, const BatchNorm& s,
                                  const NormalizedBackward& args, Runner& runner) {
  const int64_t channels = p.channels, filters = p.filters, pixels = p.images * p.pixels;
  const T *x = static_cast<const T*>(args.x), *v = static_cast<const T*>(args.norm.x),
          *dy = static_cast<const T*>(args.norm.dy);
  T *const dx = static_cast<T*>(args.dx), *const dkernel = static_cast<T*>(args.dkernel);
  const Workspace<T> factors(kBatchNormFactors * filters);
  rows_factors<T, kActivation>(s, args.norm, factors.get(), runner);
  if (dx == nullptr && dkernel == nullptr) return;
  // With a kernel [filters, channels], the gradient of x is a product that mixes filters to
  // channels.
  const Pointwise turned{1, pixels, filters, channels, false};
  const Weights<T> kernel = forward_weights(static_cast<const T*>(args.kernel), filters, channels);
  const RowGradient<T, kActivation> gradient(filters, factors.get());
  const NormalizedPlan plan = plan_normalized<T>(pixels, channels, filters);
  if (plan.apart()) {
    const Workspace<T> dv(pixels * filters);
    gradient.put(pixels, v, dy, dv.get(), runner);
    if (dx != nullptr)
      pointwise_product<T>(1, pixels, false, kernel, dv.get(), Finish<T>{}, dx, runner);
    if (dkernel != nullptr) pointwise_kernel_gradient<T>(turned, dv.get(), x, dkernel, runner);
    return;
  }
  const PackedWeights<T> weights(kernel, runner);
  const bool exchanged = dkernel != nullptr && is_exchanged(turned);
  const Turned<T> transposed(1, filters, channels, exchanged);
  const GroupSums<T> sums(plan.groups, dkernel == nullptr ? 0 : filters * channels,
                          exchanged ? transposed.get() : dkernel);
  const int64_t scratch = exchanged
                              ? gradient_elements<T>(channels, filters, plan.tiles.most, false)
                              : gradient_elements<T>(filters, channels, plan.tiles.most, false);
  const int64_t tile_elements = round_up(plan.tiles.most * filters, kLanes<T>);
  parallel<T>(runner, plan.groups, tile_elements + scratch, [&](int64_t group, T* dv) {
    T* const packed = dv + tile_elements;
    const int64_t begin = part_start(plan.tiles.count, plan.groups, group);
    const int64_t end = part_start(plan.tiles.count, plan.groups, group + 1);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = plan.tiles.first(tile), count = plan.tiles.first(tile + 1) - first;
      gradient.put(count, v + first * filters, dy + first * filters, dv);
      if (dx != nullptr)
        multiply<false, T, ProductInto<T, T>>(count, channels, filters, MatrixA<T>{dv, filters, 1},
                                              weights.all(), dx + first * channels, channels, {});
      if (dkernel == nullptr) continue;
      if (exchanged)
        add_pointwise_gradient(channels, filters, count,
                               MatrixA<T>{x + first * channels, 1, channels}, dv, filters,
                               int64_t{1}, tile != begin, sums.of(group), packed);
      else
        add_pointwise_gradient(filters, channels, count, MatrixA<T>{dv, 1, filters},
                               x + first * channels, channels, int64_t{1}, tile != begin,
                               sums.of(group), packed);
    }
  });
  if (dkernel == nullptr) return;
  sums.add_up(runner);
  if (exchanged) transposed.put_back(dkernel, runner);
}

// The same of a depthwise convolution: a few images at a time go through both steps.
template <class T, Activation kActivation>
void normalized_depthwise_gradients(const Geometry& g, const BatchNorm& s,
                                    const NormalizedBackward& args, Runner& runner) {
  const int64_t inputs = g.h * g.w * g.c, channels = s.channels, rows = g.ho * g.wo;
  const T *x = static_cast<const T*>(args.x), *v = static_cast<const T*>(args.norm.x),
          *dy = static_cast<const T*>(args.norm.dy);
  T* const dx = static_cast<T*>(args.dx);
  const Workspace<T> factors(kBatchNormFactors * channels);
  rows_factors<T, kActivation>(s, args.norm, factors.get(), runner);
  if (dx == nullptr && args.dkernel == nullptr) return;
  const int64_t together = units_together(g.n, rows * channels, 0, tuning::kNormalizedElements);
  const RowGradient<T, kActivation> gradient(channels, factors.get());
  const Workspace<T> dv(largest_part(g.n, together) * rows * channels);
  const PartSum<T> sum(static_cast<T*>(args.dkernel), g.kh * g.kw * channels);
  each_part(g.n, together, [&](int64_t first, int64_t count, bool is_first) {
    const int64_t offset = first * rows * channels;
    gradient.put(count * rows, v + offset, dy + offset, dv.get(), runner);
    Geometry part = g;
    part.n = count;
    backward_all<T>(part,
                    {.x = x + first * inputs,
                     .depthwise_kernel = args.kernel,
                     .dy = dv.get(),
                     .dx = dx == nullptr ? nullptr : dx + first * inputs,
                     .ddepthwise = sum.get(is_first)},
                    runner);
    sum.add(is_first, runner);
  });
}

template <class T>
void normalized_product_backward(const Pointwise& p, const BatchNorm& s,
                                 const NormalizedBackward& args, Runner& runner) {
  with_activation(s.activation, [&]<Activation kActivation>() {
    normalized_product_gradients<T, kActivation>(p, s, args, runner);
  });
}

template <class T>
void normalized_depthwise_backward(const Geometry& g, const BatchNorm& s,
                                   const NormalizedBackward& args, Runner& runner) {
  with_activation(s.activation, [&]<Activation kActivation>() {
    normalized_depthwise_gradients<T, kActivation>(g, s, args, runner);
  });
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
