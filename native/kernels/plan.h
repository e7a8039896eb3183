// The plan of a whole operation, made of the plans of its steps, to be printed, tested and
// explained. Kernels make the plans of their own steps (plan_depthwise.h, plan_pointwise.h,
// plan_separable.h) from the same sizes.
#pragma once
#include "../operation.h"
#include "../plan.h"
#include "plan_separable.h"

namespace sepconv::SEPCONV_ISA_NAMESPACE {

template <class T>
int64_t bytes_of(int64_t elements) {
  return elements * static_cast<int64_t>(sizeof(T));
}

// The items of the largest part, whose last unit need not be whole.
inline int64_t largest(const Cut& cut) { return min_of(cut.most, cut.total); }

template <class T>
PlanStep depthwise_step(const DepthwisePlan& plan) {
  return {.kind = StepKind::depthwise,
          .kernel = plan.band.kernel,
          .bands = plan.bands.count,
          .band_rows = largest(plan.bands),
          .row_pieces = plan.row_pieces,
          .channel_parts = plan.channel_parts,
          .groups = plan.groups,
          .tasks = plan.tasks,
          .scratch_bytes = bytes_of<Real<T>>(plan.scratch),
          .kept_bytes = bytes_of<Real<T>>(plan.kept)};
}

template <class T>
PlanStep product_step(const ProductPlan& plan) {
  return {.kind = StepKind::pointwise,
          .bands = plan.tiles.count,
          .band_rows = largest(plan.tiles),
          .filter_parts = plan.filter_parts.count,
          .tasks = plan.tasks,
          .scratch_bytes = bytes_of<Multiplied<T>>(plan.scratch),
          .kept_bytes = bytes_of<Multiplied<T>>(plan.kept)};
}

template <class T>
PlanStep fused_step(const SeparablePlan& plan) {
  return {.kind = plan.in_parts ? StepKind::fused_parts : StepKind::fused_tiles,
          .kernel = plan.band.kernel,
          .bands = plan.tiles.bands.count,
          .band_rows = largest(plan.tiles.bands),
          .row_pieces = plan.tiles.pieces,
          .tasks = plan.tasks,
          .scratch_bytes = bytes_of<Real<T>>(plan.scratch),
          .kept_bytes = bytes_of<Real<T>>(plan.kept)};
}

template <class T>
PlanStep recompute_step(const RecomputePlan& plan) {
  return {.kind = StepKind::fused_tiles,
          .kernel = plan.band.kernel,
          .bands = plan.tiles.bands.count,
          .band_rows = largest(plan.tiles.bands),
          .row_pieces = plan.tiles.pieces,
          .channel_parts = plan.channel_parts,
          .groups = plan.groups,
          .tasks = plan.tasks,
          .scratch_bytes = bytes_of<Real<T>>(plan.scratch)};
}

template <class T>
PlanStep patches_step(const ProductPlan& plan) {
  PlanStep step = product_step<T>(plan);
  step.kind = StepKind::patches;
  // Channels last, a task has all filters, part after part.
  if (plan.tasks == plan.tiles.count) step.filter_parts = 1;
  return step;
}

inline void add_step(Plan& plan, const PlanStep& step) { plan.steps[plan.count++] = step; }

template <class T>
Plan plan_forward(Geometry g, const Operation& operation, int64_t threads) {
  Plan plan{.images = g.n};
  if (operation.pass == Pass::ordinary_forward) {
    add_step(plan,
             patches_step<T>(plan_patches<T>(g, operation.filters, operation.packed).product));
    return plan;
  }
  if (operation.filters != 0) {
    const SeparablePlan whole = plan_separable_forward<T>(g, operation.filters, operation.packed,
                                                          threads, operation.overrule.schedule);
    if (!whole.in_steps) {
      add_step(plan, fused_step<T>(whole));
      return plan;
    }
    g.n = plan.images = largest_part(g.n, images_between_steps<Real<T>>(g, operation.filters));
  }
  const DepthwiseKernel wanted =
      operation.filters == 0 ? operation.overrule.kernel : DepthwiseKernel::none;
  add_step(plan, depthwise_step<T>(plan_depthwise_forward<T>(
                     is_turned<T>(g, wanted) ? turned(g) : g, threads, wanted)));
  if (operation.filters != 0)
    add_step(plan, product_step<T>(plan_product<T>(g.n, g.ho * g.wo, g.channels_first, g.c * g.m,
                                                   operation.filters, operation.packed)));
  return plan;
}

// A separable convolution's depthwise gradients see what the product makes of dy.
template <class T>
Plan plan_backward(Geometry g, const Operation& operation, int64_t threads) {
  const int64_t filters = operation.filters;
  g.n = largest_part(g.n, images_backward<Real<T>>(g, filters));
  const Geometry depthwise = is_turned<T>(g) ? turned(g) : g;
  Plan plan{.images = g.n};
  if (operation.pass == Pass::pointwise_kernel_gradient) {
    add_step(plan, recompute_step<T>(plan_recompute<T>(g, filters, threads)));
    return plan;
  }
  if (filters != 0)
    add_step(plan, product_step<T>(plan_product<T>(g.n, g.ho * g.wo, g.channels_first, filters,
                                                   g.c * g.m, false)));
  add_step(plan, depthwise_step<T>(operation.pass == Pass::input_gradient
                                       ? plan_input_gradient<T>(depthwise, threads)
                                       : plan_kernel_gradient<T>(depthwise, threads)));
  return plan;
}

template <class T>
Plan plan_operation(const Geometry& g, const Operation& operation, int64_t threads) {
  const bool forward = operation.pass == Pass::forward || operation.pass == Pass::ordinary_forward;
  return forward ? plan_forward<T>(g, operation, threads) : plan_backward<T>(g, operation, threads);
}

// Of a 1x1 convolution alone.
template <class T>
Plan plan_pointwise(const Pointwise& p, Pass pass, bool packed, int64_t threads) {
  Plan plan{.images = p.images};
  if (pass == Pass::pointwise_kernel_gradient) {
    const ProductGradientPlan gradient = plan_product_gradient<T>(p, threads);
    add_step(plan, {.kind = StepKind::pointwise,
                    .bands = gradient.tiles.count,
                    .band_rows = largest(gradient.tiles),
                    .channel_parts = gradient.channel_parts,
                    .groups = gradient.groups,
                    .tasks = gradient.tasks,
                    .scratch_bytes = bytes_of<Multiplied<T>>(gradient.scratch)});
    return plan;
  }
  const bool forward = pass == Pass::forward;
  add_step(plan, product_step<T>(plan_product<T>(p.images, p.pixels, p.channels_first,
                                                 forward ? p.channels : p.filters,
                                                 forward ? p.filters : p.channels, packed)));
  return plan;
}

}  // namespace sepconv::SEPCONV_ISA_NAMESPACE
