// Which kernel serves which geometry, and how its work is cut, pinned in a table. Nothing runs.
#include <cstdio>
#include <stdexcept>
#include <string>

#include "../../native/dispatch.h"
#include "check.h"
#include "sections.h"

namespace test {
namespace {

using sepconv::DepthwiseKernel;
using sepconv::DType;
using sepconv::Pass;
using sepconv::Plan;
using sepconv::PlanStep;
using sepconv::StepKind;

struct Layer {
  const char* name;
  int64_t n, h, w, c, kernel_h, kernel_w, m, stride, dilation;
  bool channels_first;
};

sepconv::Geometry geometry_of(const Layer& l) {
  const int64_t last[4] = {l.n, l.h, l.w, l.c}, first[4] = {l.n, l.c, l.h, l.w};
  const int64_t kernel[4] = {l.kernel_h, l.kernel_w, l.c, l.m};
  return sepconv::resolve({.stride_h = l.stride,
                           .stride_w = l.stride,
                           .dilation_h = l.dilation,
                           .dilation_w = l.dilation,
                           .same = 1,
                           .pad_top = 0,
                           .pad_bottom = 0,
                           .pad_left = 0,
                           .pad_right = 0,
                           .channels_first = l.channels_first},
                          l.channels_first ? first : last, kernel);
}

struct Row {
  Layer layer;
  // Of the depthwise step alone: the forward pass, the input's gradient and the kernel's, of
  // float32 on AVX-512 and two threads.
  DepthwiseKernel kernels[3];
  int64_t tasks[3];
  // Of the separable convolution to so many filters: how its forward pass begins, and the tasks of
  // that and of the pointwise kernel's gradient.
  int64_t filters;
  StepKind kind;
  int64_t separable_tasks[2];
};

constexpr auto kFlat = DepthwiseKernel::flat, kPlanar = DepthwiseKernel::planar,
               kSmall = DepthwiseKernel::small, kStride2 = DepthwiseKernel::stride2,
               kChannelwise = DepthwiseKernel::channelwise;
constexpr auto kSteps = StepKind::depthwise, kTiles = StepKind::fused_tiles,
               kParts = StepKind::fused_parts;

// A layer of each network of bench/workloads.py, and what none of them has.
const Row kRows[] = {
    {{"mobilenet_v1/1", 1, 112, 112, 32, 3, 3, 1, 1, 1, false},
     {kSmall, kSmall, kSmall},
     {16, 16, 20},
     64,
     kTiles,
     {112, 8}},
    {{"mobilenet_v1/2", 1, 112, 112, 64, 3, 3, 1, 2, 1, false},
     {kSmall, kStride2, kSmall},
     {8, 28, 12},
     128,
     kTiles,
     {28, 4}},
    {{"mobilenet_v1/13", 1, 7, 7, 1024, 3, 3, 1, 1, 1, false},
     {kSmall, kSmall, kSmall},
     {2, 2, 2},
     1024,
     kSteps,
     {2, 4}},
    {{"xception/middle", 8, 19, 19, 728, 3, 3, 1, 1, 1, false},
     {kSmall, kSmall, kSmall},
     {32, 8, 8},
     728,
     kTiles,
     {32, 6}},
    {{"efficientnet_b0/3b", 1, 28, 28, 240, 5, 5, 1, 1, 1, false},
     {kSmall, kSmall, kSmall},
     {8, 8, 8},
     40,
     kTiles,
     {8, 4}},
    {{"mobilenet_v3_small/10", 1, 7, 7, 576, 5, 5, 1, 1, 1, false},
     {kSmall, kSmall, kSmall},
     {2, 2, 2},
     96,
     kParts,
     {2, 4}},
    {{"eegnet/spatial", 1, 64, 128, 8, 64, 1, 2, 1, 1, false},
     {kFlat, kFlat, kFlat},
     {16, 1, 1},
     16,
     kSteps,
     {16, 8}},
    {{"convnext_tiny/2", 1, 28, 28, 192, 7, 7, 1, 1, 1, false},
     {kChannelwise, kChannelwise, kChannelwise},
     {12, 12, 12},
     768,
     kSteps,
     {12, 4}},
    {{"replknet_31b/4", 1, 7, 7, 1024, 13, 13, 1, 1, 1, false},
     {kChannelwise, kChannelwise, kChannelwise},
     {16, 16, 16},
     1024,
     kSteps,
     {16, 4}},
    {{"deeplab_v3+/rate-6", 1, 33, 33, 2048, 3, 3, 1, 1, 6, false},
     {kSmall, kSmall, kSmall},
     {8, 8, 8},
     256,
     kTiles,
     {20, 8}},
    {{"conv_tasnet/dilation-8", 1, 1, 1600, 512, 1, 3, 1, 1, 8, false},
     {kSmall, kSmall, kSmall},
     {16, 8, 8},
     128,
     kTiles,
     {23, 4}},
    {{"three channels", 1, 32, 32, 3, 3, 3, 1, 1, 1, false},
     {kFlat, kFlat, kFlat},
     {3, 1, 1},
     8,
     kSteps,
     {3, 1}},
    {{"three channels at stride 2", 1, 32, 32, 3, 3, 3, 1, 2, 1, false},
     {kPlanar, kPlanar, kPlanar},
     {1, 3, 3},
     8,
     kSteps,
     {1, 1}},
    {{"channels first", 2, 28, 28, 64, 3, 3, 1, 1, 1, true},
     {kPlanar, kPlanar, kPlanar},
     {128, 128, 64},
     64,
     kTiles,
     {16, 2}},
    {{"small planes", 8, 14, 14, 64, 3, 3, 1, 1, 1, true},
     {kSmall, kSmall, kSmall},
     {8, 8, 8},
     64,
     kTiles,
     {16, 2}},
    {{"small planes of few images", 2, 14, 14, 64, 3, 3, 1, 1, 1, true},
     {kPlanar, kPlanar, kPlanar},
     {128, 128, 64},
     64,
     kSteps,
     {128, 2}},
};

// 1x1 convolutions alone: the forward pass, and the kernel's gradient on two threads.
struct ProductRow {
  sepconv::Pointwise shape;
  int64_t tiles, blocks, tasks;
  int64_t groups, gradient_tasks;
};

const ProductRow kProducts[] = {
    {{1, 12544, 32, 64, false}, 264, 1, 264, 8, 8},
    {{1, 49, 1024, 1024, false}, 1, 16, 16, 1, 4},
    {{8, 361, 728, 728, false}, 64, 12, 768, 2, 6},
    {{2, 784, 64, 64, true}, 5, 1, 10, 1, 2},
};

long long number(int64_t value) { return value; }

bool on_avx512() { return std::string(sepconv::isa_name()) == "x86-64-v4"; }

Plan plan(const sepconv::Geometry& g, Pass pass, int threads, int64_t filters = 0) {
  return sepconv::make_plan(DType::f32, g, {.pass = pass, .filters = filters}, threads);
}

// Every task has one part of each of these.
void check_count(const Plan& plan, const PlanStep& step) {
  const int64_t parts = step.groups != 0 ? step.groups : plan.images * step.bands * step.row_pieces;
  CHECK(step.tasks == parts * step.channel_parts);
}

void check_depthwise(const Row& row, const sepconv::Geometry& g) {
  for (int pass = 0; pass < 3; ++pass) {
    const Plan two = plan(g, static_cast<Pass>(pass), 2);
    const PlanStep& step = two.steps[0];
    check_count(two, step);
    if (on_avx512() &&
        !CHECK(two.count == 1 && step.kernel == row.kernels[pass] && step.tasks == row.tasks[pass]))
      std::fprintf(stderr, "  %s, pass %d: kernel %d, %lld tasks\n", row.layer.name, pass,
                   static_cast<int>(step.kernel), number(step.tasks));
    // What is summed up over tasks is not cut by the number of threads.
    for (const int threads : {1, 3, 64}) {
      const PlanStep other = plan(g, static_cast<Pass>(pass), threads).steps[0];
      CHECK(other.kernel == step.kernel && other.groups == step.groups);
      if (pass == 2) CHECK(other.bands == step.bands && other.band_rows == step.band_rows);
    }
  }
}

void check_separable(const Row& row, const sepconv::Geometry& g) {
  const Plan forward = plan(g, Pass::forward, 2, row.filters);
  const Plan gradient = plan(g, Pass::pointwise_kernel_gradient, 2, row.filters);
  const PlanStep &first = forward.steps[0], &anew = gradient.steps[0];
  CHECK(forward.count == (first.kind == StepKind::depthwise ? 2 : 1));
  CHECK(gradient.count == 1 && anew.kind == StepKind::fused_tiles);
  check_count(forward, first);
  check_count(gradient, anew);
  if (on_avx512() && !CHECK(first.kind == row.kind && first.tasks == row.separable_tasks[0] &&
                            anew.tasks == row.separable_tasks[1]))
    std::fprintf(stderr, "  %s -> %lld: kind %d, %lld and %lld tasks\n", row.layer.name,
                 number(row.filters), static_cast<int>(first.kind), number(first.tasks),
                 number(anew.tasks));
  for (const int threads : {1, 3, 64}) {
    const Plan other = plan(g, Pass::pointwise_kernel_gradient, threads, row.filters);
    CHECK(other.images == gradient.images && other.steps[0].groups == anew.groups);
    CHECK(other.steps[0].bands == anew.bands && other.steps[0].row_pieces == anew.row_pieces);
  }
  // The product gives what the depthwise gradients begin with.
  for (const Pass pass : {Pass::input_gradient, Pass::kernel_gradient}) {
    const Plan two = plan(g, pass, 2, row.filters);
    CHECK(two.count == 2 && two.steps[0].kind == StepKind::pointwise);
    CHECK(two.steps[1].kernel == plan(g, pass, 2).steps[0].kernel);
  }
}

void check_product(const ProductRow& row) {
  const auto gradient = [&](int threads) {
    return sepconv::make_plan(DType::f32, row.shape, Pass::pointwise_kernel_gradient, false,
                              threads);
  };
  const Plan forward = sepconv::make_plan(DType::f32, row.shape, Pass::forward, false, 2);
  const PlanStep &step = forward.steps[0], two = gradient(2).steps[0];
  if (on_avx512() && !CHECK(step.bands == row.tiles && step.filter_parts == row.blocks &&
                            step.tasks == row.tasks && two.groups == row.groups &&
                            two.tasks == row.gradient_tasks))
    std::fprintf(
        stderr,
        "  1x1, %lld x %lld: %lld tiles, %lld blocks, %lld tasks; %lld groups, %lld tasks\n",
        number(row.shape.images * row.shape.pixels), number(row.shape.channels), number(step.bands),
        number(step.filter_parts), number(step.tasks), number(two.groups), number(two.tasks));
  for (const int threads : {1, 3, 64}) {
    const PlanStep other = gradient(threads).steps[0];
    CHECK(other.groups == two.groups && other.bands == two.bands);
  }
}

// With far more channels than filters a kernel's gradient is that of the kernel transposed.
void check_exchanged() {
  const auto gradient = [](int64_t channels, int64_t filters, int64_t pixels) {
    return sepconv::make_plan(DType::f32, sepconv::Pointwise{2, pixels, channels, filters, false},
                              Pass::pointwise_kernel_gradient, false, 2)
        .steps[0];
  };
  const auto same = [](const PlanStep& a, const PlanStep& b) {
    return a.tasks == b.tasks && a.channel_parts == b.channel_parts && a.bands == b.bands &&
           a.scratch_bytes == b.scratch_bytes;
  };
  CHECK(same(gradient(384, 64, 4096), gradient(64, 384, 4096)));
  // Not where there are few pixels.
  CHECK(!same(gradient(384, 64, 16), gradient(64, 384, 16)));
}

// Packed weights are kept by nobody, and what there is no pass of is refused.
void check_operations() {
  const sepconv::Geometry g = geometry_of(kRows[0].layer);
  const auto packed = [&](bool packed) {
    return sepconv::make_plan(DType::f32, g, {.filters = 64, .packed = packed}, 2).steps[0];
  };
  CHECK(packed(true).kept_bytes == 0 && packed(false).kept_bytes > 0);
  CHECK_THROWS(plan(g, Pass::pointwise_kernel_gradient, 2), std::invalid_argument, "no such pass");
  CHECK_THROWS(
      plan(geometry_of({"", 2, 8, 8, 4, 3, 3, 2, 1, 1, false}), Pass::ordinary_forward, 2, 8),
      std::invalid_argument, "not that of an ordinary convolution");
  CHECK_THROWS(sepconv::make_plan(DType::f32, kProducts[0].shape, Pass::kernel_gradient, false, 2),
               std::invalid_argument, "no such pass");
  for (const bool first : {false, true}) {
    const auto ordinary = [&](int size) {
      const Layer layer{"", 2, 32, 32, 3, size, size, 1, size == 1 ? 1 : 2, 1, first};
      const Plan made = plan(geometry_of(layer), Pass::ordinary_forward, 2, 8);
      CHECK(made.count == 1);
      return made.steps[0];
    };
    const PlanStep tiles = ordinary(3);
    const int64_t images = first ? 2 : 1;
    CHECK(tiles.kind == StepKind::patches && tiles.scratch_bytes > 0);
    CHECK(tiles.tasks == images * tiles.bands * tiles.filter_parts);
    CHECK(ordinary(1).kind == StepKind::pointwise);
  }
  CHECK(plan(geometry_of({"", 0, 8, 8, 4, 3, 3, 1, 1, 1, false}), Pass::forward, 2).count == 0);
}

}  // namespace

void check_plans() {
  for (const Row& row : kRows) {
    const sepconv::Geometry g = geometry_of(row.layer);
    check_depthwise(row, g);
    check_separable(row, g);
  }
  for (const ProductRow& row : kProducts) check_product(row);
  check_exchanged();
  check_operations();
}

}  // namespace test
