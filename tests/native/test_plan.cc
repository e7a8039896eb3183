// Which kernel serves which geometry, and how its work is cut, pinned in a table. Nothing runs.
#include <cstdio>
#include <string>

#include "../../native/dispatch.h"
#include "check.h"
#include "sections.h"

namespace test {
namespace {

using sepconv::DepthwiseKernel;
using sepconv::Pass;

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
  // Of the forward pass, the input's gradient and the kernel's, of float32 on AVX-512.
  DepthwiseKernel kernels[3];
  int64_t tasks[3];  // on two threads
};

constexpr auto kFlat = DepthwiseKernel::flat, kPlanar = DepthwiseKernel::planar,
               kSmall = DepthwiseKernel::small, kStride2 = DepthwiseKernel::stride2,
               kChannelwise = DepthwiseKernel::channelwise;

// A layer of each network of bench/workloads.py, and what none of them has.
const Row kRows[] = {
    {{"mobilenet_v1/1", 1, 112, 112, 32, 3, 3, 1, 1, 1, false},
     {kSmall, kChannelwise, kSmall},
     {16, 16, 20}},
    {{"mobilenet_v1/2", 1, 112, 112, 64, 3, 3, 1, 2, 1, false},
     {kSmall, kStride2, kSmall},
     {8, 28, 12}},
    {{"mobilenet_v1/13", 1, 7, 7, 1024, 3, 3, 1, 1, 1, false},
     {kSmall, kChannelwise, kSmall},
     {2, 2, 2}},
    {{"xception/middle", 8, 19, 19, 728, 3, 3, 1, 1, 1, false},
     {kSmall, kChannelwise, kSmall},
     {32, 32, 32}},
    {{"efficientnet_b0/3b", 1, 28, 28, 240, 5, 5, 1, 1, 1, false},
     {kChannelwise, kChannelwise, kChannelwise},
     {16, 16, 16}},
    {{"eegnet/spatial", 1, 64, 128, 8, 64, 1, 2, 1, 1, false}, {kFlat, kFlat, kFlat}, {16, 1, 1}},
    {{"convnext_tiny/2", 1, 28, 28, 192, 7, 7, 1, 1, 1, false},
     {kChannelwise, kChannelwise, kChannelwise},
     {12, 12, 12}},
    {{"replknet_31b/4", 1, 7, 7, 1024, 13, 13, 1, 1, 1, false},
     {kChannelwise, kChannelwise, kChannelwise},
     {16, 16, 16}},
    {{"deeplab_v3+/rate-6", 1, 33, 33, 2048, 3, 3, 1, 1, 6, false},
     {kSmall, kChannelwise, kSmall},
     {8, 8, 8}},
    {{"conv_tasnet/dilation-8", 1, 1, 1600, 512, 1, 3, 1, 1, 8, false},
     {kSmall, kChannelwise, kSmall},
     {16, 8, 8}},
    {{"three channels", 1, 32, 32, 3, 3, 3, 1, 1, 1, false}, {kFlat, kFlat, kFlat}, {3, 1, 1}},
    {{"three channels at stride 2", 1, 32, 32, 3, 3, 3, 1, 2, 1, false},
     {kPlanar, kPlanar, kPlanar},
     {1, 3, 3}},
    {{"channels first", 2, 28, 28, 64, 3, 3, 1, 1, 1, true},
     {kPlanar, kPlanar, kPlanar},
     {128, 128, 64}},
};

}  // namespace

void check_plans() {
  for (const Row& row : kRows) {
    const sepconv::Geometry g = geometry_of(row.layer);
    for (int pass = 0; pass < 3; ++pass) {
      const auto plan = [&](int threads) {
        return sepconv::make_plan(sepconv::DType::f32, g, static_cast<Pass>(pass), threads);
      };
      const sepconv::Plan two = plan(2);
      if (std::string(sepconv::isa_name()) == "x86-64-v4" &&
          !CHECK(two.kernel == row.kernels[pass] && two.tasks == row.tasks[pass]))
        std::fprintf(stderr, "  %s, pass %d: kernel %d, %lld tasks\n", row.layer.name, pass,
                     static_cast<int>(two.kernel), static_cast<long long>(two.tasks));
      // What is summed up over tasks is not cut by the number of threads.
      for (const int threads : {1, 3, 64}) {
        const sepconv::Plan other = plan(threads);
        CHECK(other.kernel == two.kernel && other.groups == two.groups);
        if (pass == 2) CHECK(other.bands == two.bands && other.band_rows == two.band_rows);
      }
    }
  }
}

}  // namespace test
