// The Python module sepconv._native: geometry, the kernels on host memory, threads.
//
// A buffer is passed as an object with the buffer protocol (its bytes are counted against the
// geometry), as an integer address (an engine's own tensor, which the engine's adapter has
// checked), or as None.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <iterator>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bind_batch_norm.h"
#include "bind_buffer.h"
#include "bind_program.h"
#include "bind_quantized.h"
#include "dispatch.h"
#include "gil.h"
#include "prepared.h"
#include "roofline.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using sepconv::Buffer;

std::array<int64_t, 4> four(nb::tuple values) {
  if (values.size() != 4) throw std::invalid_argument("A shape of 4 sizes was expected.");
  std::array<int64_t, 4> out{};
  for (size_t i = 0; i < 4; ++i) out[i] = nb::cast<int64_t>(values[i]);
  return out;
}

sepconv::Geometry make_geometry(nb::tuple spec, nb::tuple x_shape, nb::tuple kernel_shape) {
  if (spec.size() != sepconv::kSpecSize) throw std::invalid_argument("spec: 10 integers expected.");
  std::array<int64_t, sepconv::kSpecSize> s{};
  for (size_t i = 0; i < s.size(); ++i) s[i] = nb::cast<int64_t>(spec[i]);
  const sepconv::Spec plain{s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9]};
  return sepconv::resolve(plain, four(x_shape).data(), four(kernel_shape).data());
}

constexpr const char* kPasses[] = {"forward", "input_gradient", "kernel_gradient",
                                   "pointwise_kernel_gradient", "ordinary_forward"};
constexpr const char* kKinds[] = {"depthwise", "pointwise", "fused_tiles", "fused_parts",
                                  "patches"};
constexpr const char* kKernels[] = {"none", "flat", "planar", "small", "stride2", "channelwise"};
constexpr const char* kSchedules[] = {"chosen", "steps", "tiles", "parts"};

// The value of an `Enum` by its name, which stands in `names` in the order of the values.
template <class Enum, size_t count>
Enum by_name(const char* what, const char* const (&names)[count], const std::string& name) {
  const auto* const found = std::find(std::begin(names), std::end(names), name);
  if (found == std::end(names))
    throw std::invalid_argument("There is no such " + std::string(what) + ". Received: " + name);
  return static_cast<Enum>(found - names);
}

// From None or the names of a kernel and a schedule.
sepconv::Overrule overrule_of(nb::handle names) {
  if (names.is_none()) return {};
  const auto [kernel, schedule] = nb::cast<std::tuple<std::string, std::string>>(names);
  return {by_name<sepconv::DepthwiseKernel>("kernel", kKernels, kernel),
          by_name<sepconv::Schedule>("schedule", kSchedules, schedule)};
}

// There is a kernel, and as many filters as it has where it mixes channels.
void check_kernels(nb::handle depthwise_kernel, nb::handle pointwise_kernel, int64_t filters) {
  if (depthwise_kernel.is_none() && pointwise_kernel.is_none())
    throw std::invalid_argument("There is no kernel.");
  if (filters < 0 || (filters != 0) == pointwise_kernel.is_none())
    throw std::invalid_argument(
        "filters must be 0 where there is no pointwise_kernel, and only there. Received: filters=" +
        std::to_string(filters));
}

void forward(const sepconv::Geometry& g, int dtype, nb::handle x, nb::handle depthwise_kernel,
             nb::handle depthwise_bias, nb::handle pointwise_kernel, nb::handle bias,
             nb::handle residual, nb::handle y, int64_t filters, int depthwise_activation,
             int activation, nb::handle overrule) {
  check_kernels(depthwise_kernel, pointwise_kernel, filters);
  const sepconv::DType type = sepconv::dtype_of(dtype);
  const int64_t cm = g.c * g.m, out = filters != 0 ? filters : cm;
  const int64_t depth = depthwise_kernel.is_none() ? g.kh * g.kw * g.c : cm;
  Buffer bx("x", x, g.n * g.h * g.w * g.c, type, false);
  Buffer bk("depthwise_kernel", depthwise_kernel, g.kh * g.kw * cm, type, false);
  Buffer bdb("depthwise_bias", depthwise_bias, cm, type, false);
  Buffer bp("pointwise_kernel", pointwise_kernel, depth * filters, type, false);
  Buffer bb("bias", bias, out, type, false);
  Buffer br("residual", residual, g.n * g.ho * g.wo * out, type, false);
  Buffer by("out", y, g.n * g.ho * g.wo * out, type, true);
  by.check_apart({&bx, &bk, &bdb, &bp, &bb, &br});
  const sepconv::Forward args{.x = bx.get(),
                              .depthwise_kernel = bk.get(),
                              .depthwise_bias = bdb.get(),
                              .pointwise_kernel = bp.get(),
                              .bias = bb.get(),
                              .residual = br.get(),
                              .y = by.get(),
                              .filters = filters,
                              .depthwise_activation = sepconv::activation_of(depthwise_activation),
                              .activation = sepconv::activation_of(activation),
                              .overrule = overrule_of(overrule)};
  const sepconv::WithoutGil unlocked;
  sepconv::forward(type, g, args, sepconv::pool());
}

void backward(const sepconv::Geometry& g, int dtype, nb::handle x, nb::handle depthwise_kernel,
              nb::handle pointwise_kernel, nb::handle dy, nb::handle dx, nb::handle ddepthwise,
              nb::handle dpointwise, nb::handle dbias, int64_t filters) {
  const sepconv::DType type = sepconv::dtype_of(dtype);
  const int64_t cm = g.c * g.m, out = filters != 0 ? filters : cm;
  Buffer bx("x", x, g.n * g.h * g.w * g.c, type, false);
  Buffer bk("depthwise_kernel", depthwise_kernel, g.kh * g.kw * cm, type, false);
  Buffer bp("pointwise_kernel", pointwise_kernel, cm * filters, type, false);
  Buffer bdy("dy", dy, g.n * g.ho * g.wo * out, type, false);
  Buffer bdx("dx", dx, g.n * g.h * g.w * g.c, type, true);
  Buffer bdk("ddepthwise", ddepthwise, g.kh * g.kw * cm, type, true);
  Buffer bdp("dpointwise", dpointwise, cm * filters, type, true);
  Buffer bdb("dbias", dbias, out, type, true);
  const sepconv::Backward args{.x = bx.get(),
                               .depthwise_kernel = bk.get(),
                               .pointwise_kernel = bp.get(),
                               .dy = bdy.get(),
                               .dx = bdx.get(),
                               .ddepthwise = bdk.get(),
                               .dpointwise = bdp.get(),
                               .dbias = bdb.get(),
                               .filters = filters};
  const sepconv::WithoutGil unlocked;
  sepconv::backward(type, g, args, sepconv::pool());
}

void pointwise_forward(int64_t images, int64_t pixels, int64_t channels, int64_t filters,
                       bool channels_first, int dtype, nb::handle x, nb::handle pointwise_kernel,
                       nb::handle bias, nb::handle residual, nb::handle y, int activation) {
  const sepconv::DType type = sepconv::dtype_of(dtype);
  Buffer bx("x", x, images * pixels * channels, type, false);
  Buffer bk("pointwise_kernel", pointwise_kernel, channels * filters, type, false);
  Buffer bb("bias", bias, filters, type, false);
  Buffer br("residual", residual, images * pixels * filters, type, false);
  Buffer by("out", y, images * pixels * filters, type, true);
  by.check_apart({&bx, &bk, &bb, &br});
  const sepconv::Pointwise p{images, pixels, channels, filters, channels_first};
  const sepconv::PointwiseForward args{.x = bx.get(),
                                       .pointwise_kernel = bk.get(),
                                       .bias = bb.get(),
                                       .residual = br.get(),
                                       .y = by.get(),
                                       .activation = sepconv::activation_of(activation)};
  const sepconv::WithoutGil unlocked;
  sepconv::pointwise_forward(type, p, args, sepconv::pool());
}

void pointwise_backward(int64_t images, int64_t pixels, int64_t channels, int64_t filters,
                        bool channels_first, int dtype, nb::handle x, nb::handle pointwise_kernel,
                        nb::handle dy, nb::handle dx, nb::handle dpointwise, nb::handle dbias) {
  const sepconv::DType type = sepconv::dtype_of(dtype);
  Buffer bx("x", x, images * pixels * channels, type, false);
  Buffer bk("pointwise_kernel", pointwise_kernel, channels * filters, type, false);
  Buffer bdy("dy", dy, images * pixels * filters, type, false);
  Buffer bdx("dx", dx, images * pixels * channels, type, true);
  Buffer bdk("dpointwise", dpointwise, channels * filters, type, true);
  Buffer bdb("dbias", dbias, filters, type, true);
  const sepconv::Pointwise p{images, pixels, channels, filters, channels_first};
  const sepconv::PointwiseBackward args{.x = bx.get(),
                                        .pointwise_kernel = bk.get(),
                                        .dy = bdy.get(),
                                        .dx = bdx.get(),
                                        .dpointwise = bdk.get(),
                                        .dbias = bdb.get()};
  const sepconv::WithoutGil unlocked;
  sepconv::pointwise_backward(type, p, args, sepconv::pool());
}

sepconv::PreparedConvolution prepare(int dtype, bool channels_first, int64_t taps, int64_t channels,
                                     int64_t depth_multiplier, int64_t filters,
                                     nb::handle depthwise_kernel, nb::handle depthwise_bias,
                                     nb::handle pointwise_kernel, nb::handle bias,
                                     int depthwise_activation, int activation) {
  check_kernels(depthwise_kernel, pointwise_kernel, filters);
  const sepconv::DType type = sepconv::dtype_of(dtype);
  const int64_t cm = channels * depth_multiplier;
  const int64_t depth = depthwise_kernel.is_none() ? taps * channels : cm;
  Buffer bk("depthwise_kernel", depthwise_kernel, taps * cm, type, false);
  Buffer bdb("depthwise_bias", depthwise_bias, cm, type, false);
  Buffer bp("pointwise_kernel", pointwise_kernel, depth * filters, type, false);
  Buffer bb("bias", bias, filters != 0 ? filters : cm, type, false);
  const sepconv::Forward args{.depthwise_kernel = bk.get(),
                              .depthwise_bias = bdb.get(),
                              .pointwise_kernel = bp.get(),
                              .bias = bb.get(),
                              .filters = filters,
                              .depthwise_activation = sepconv::activation_of(depthwise_activation),
                              .activation = sepconv::activation_of(activation)};
  return sepconv::PreparedConvolution(
      {type, channels_first, taps, channels, depth_multiplier, args});
}

void prepared_forward(const sepconv::PreparedConvolution& prepared, const sepconv::Geometry& g,
                      nb::handle x, nb::handle residual, nb::handle y) {
  const sepconv::PreparedConvolution::Weights& w = prepared.weights();
  if (g.kh * g.kw != w.taps || g.c != w.channels || g.m != w.depth_multiplier ||
      g.channels_first != w.channels_first)
    throw std::invalid_argument("The geometry is not that of the prepared weights.");
  const int64_t out = w.args.mixes() ? w.args.filters : g.c * g.m;
  Buffer bx("x", x, g.n * g.h * g.w * g.c, w.dtype, false);
  Buffer by("out", y, g.n * g.ho * g.wo * out, w.dtype, true);
  Buffer br("residual", residual, g.n * g.ho * g.wo * out, w.dtype, false);
  by.check_apart({&bx, &br});
  const sepconv::WithoutGil unlocked;
  prepared.forward(g, bx.get(), br.get(), by.get(), sepconv::pool());
}

// A plan by the names of its parts.
nb::dict named(const sepconv::Plan& plan) {
  nb::list steps;
  for (int64_t i = 0; i < plan.count; ++i) {
    const sepconv::PlanStep& step = plan.steps[i];
    nb::dict values;
    values["kind"] = kKinds[static_cast<int>(step.kind)];
    values["kernel"] = kKernels[static_cast<int>(step.kernel)];
    values["bands"] = step.bands;
    values["band_rows"] = step.band_rows;
    values["row_pieces"] = step.row_pieces;
    values["channel_parts"] = step.channel_parts;
    values["filter_parts"] = step.filter_parts;
    values["groups"] = step.groups;
    values["tasks"] = step.tasks;
    values["scratch_bytes"] = step.scratch_bytes;
    values["kept_bytes"] = step.kept_bytes;
    steps.append(values);
  }
  nb::dict all;
  all["images"] = plan.images;
  all["steps"] = steps;
  return all;
}

void check_threads(int threads) {
  if (threads < 1 || threads > sepconv::kMaxThreads)
    throw std::invalid_argument("threads must be from 1 to " +
                                std::to_string(sepconv::kMaxThreads) +
                                ". Received: threads=" + std::to_string(threads));
}

nb::dict plan(const sepconv::Geometry& g, int dtype, const std::string& pass, int threads,
              int64_t filters, bool packed, nb::handle overrule) {
  check_threads(threads);
  if (filters < 0)
    throw std::invalid_argument("filters must not be negative. Received: filters=" +
                                std::to_string(filters));
  const sepconv::Operation operation{by_name<sepconv::Pass>("pass", kPasses, pass), filters, packed,
                                     overrule_of(overrule)};
  return named(sepconv::make_plan(sepconv::dtype_of(dtype), g, operation, threads));
}

nb::dict plan_pointwise(int64_t images, int64_t pixels, int64_t channels, int64_t filters,
                        bool channels_first, int dtype, const std::string& pass, int threads,
                        bool packed) {
  check_threads(threads);
  if (images < 0 || pixels < 0 || channels <= 0 || filters <= 0)
    throw std::invalid_argument("The sizes must be positive.");
  const sepconv::Pointwise shape{images, pixels, channels, filters, channels_first};
  return named(sepconv::make_plan(sepconv::dtype_of(dtype), shape,
                                  by_name<sepconv::Pass>("pass", kPasses, pass), packed, threads));
}

void check_measure(int threads, double seconds) {
  check_threads(threads);
  if (!(seconds > 0 && seconds <= 60))
    throw std::invalid_argument("seconds must be above 0 and at most 60. Received: seconds=" +
                                std::to_string(seconds));
}

double measure_fma(int threads, double seconds, int64_t dtype) {
  check_measure(threads, seconds);
  const sepconv::DType of = sepconv::dtype_of(dtype);
  const sepconv::WithoutGil unlocked;
  return sepconv::measure_fma(of, threads, seconds);
}

double measure_integers(int threads, double seconds, const std::string& type) {
  check_measure(threads, seconds);
  if (type != "int8")
    throw std::invalid_argument("Of integers there are products of int8 alone. Received: " + type);
  const sepconv::WithoutGil unlocked;
  return sepconv::measure_int8(threads, seconds);
}

double measure_bandwidth(int64_t bytes, int threads, double seconds) {
  check_measure(threads, seconds);
  if (bytes < 1)
    throw std::invalid_argument("bytes must be at least 1. Received: bytes=" +
                                std::to_string(bytes));
  const sepconv::WithoutGil unlocked;
  return sepconv::measure_bandwidth(bytes, threads, seconds);
}

}  // namespace

NB_MODULE(_native, m) {
  // Environment variables that make no sense fail the import, not a call in the middle of work.
  sepconv::num_threads();
  sepconv::isa_name();
  // PyTorch keeps the functions registered with it, and so what their caches hold, until the
  // process ends: nanobind would report that as leaks at every exit.
  nb::set_leak_warnings(false);
  bind_batch_norm(m);
  bind_program(m);
  bind_quantized(m);
  nb::class_<sepconv::Geometry>(m, "Geometry")
      .def("__init__",
           [](sepconv::Geometry* self, nb::tuple spec, nb::tuple x_shape, nb::tuple kernel_shape) {
             new (self) sepconv::Geometry(make_geometry(spec, x_shape, kernel_shape));
           })
      .def_prop_ro("x_shape",
                   [](const sepconv::Geometry& g) {
                     return g.channels_first ? nb::make_tuple(g.n, g.c, g.h, g.w)
                                             : nb::make_tuple(g.n, g.h, g.w, g.c);
                   })
      .def_prop_ro("kernel_shape",
                   [](const sepconv::Geometry& g) { return nb::make_tuple(g.kh, g.kw, g.c, g.m); })
      .def(
          "output_shape",
          [](const sepconv::Geometry& g, int64_t channels) {
            return g.channels_first ? nb::make_tuple(g.n, channels, g.ho, g.wo)
                                    : nb::make_tuple(g.n, g.ho, g.wo, channels);
          },
          "channels"_a)
      .def_prop_ro("depthwise_channels", [](const sepconv::Geometry& g) { return g.c * g.m; })
      .def_prop_ro("pads", [](const sepconv::Geometry& g) {
        const int64_t bottom = (g.ho - 1) * g.sh + (g.kh - 1) * g.dh + 1 - g.h - g.pt;
        const int64_t right = (g.wo - 1) * g.sw + (g.kw - 1) * g.dw + 1 - g.w - g.pl;
        return nb::make_tuple(nb::make_tuple(g.pt, bottom), nb::make_tuple(g.pl, right));
      });
  m.def("forward", &forward, "geometry"_a, "dtype"_a, "x"_a, "depthwise_kernel"_a.none(),
        "depthwise_bias"_a.none(), "pointwise_kernel"_a.none(), "bias"_a.none(),
        "residual"_a.none(), "y"_a, "filters"_a, "depthwise_activation"_a, "activation"_a,
        "overrule"_a.none() = nb::none());
  m.def("backward", &backward, "geometry"_a, "dtype"_a, "x"_a.none(), "depthwise_kernel"_a.none(),
        "pointwise_kernel"_a.none(), "dy"_a, "dx"_a.none(), "ddepthwise"_a.none(),
        "dpointwise"_a.none(), "dbias"_a.none(), "filters"_a);
  m.def("pointwise_forward", &pointwise_forward, "images"_a, "pixels"_a, "channels"_a, "filters"_a,
        "channels_first"_a, "dtype"_a, "x"_a, "pointwise_kernel"_a, "bias"_a.none(),
        "residual"_a.none(), "y"_a, "activation"_a);
  m.def("pointwise_backward", &pointwise_backward, "images"_a, "pixels"_a, "channels"_a,
        "filters"_a, "channels_first"_a, "dtype"_a, "x"_a.none(), "pointwise_kernel"_a.none(),
        "dy"_a, "dx"_a.none(), "dpointwise"_a.none(), "dbias"_a.none());
  nb::class_<sepconv::PreparedConvolution>(m, "PreparedConvolution")
      .def("forward", &prepared_forward, "geometry"_a, "x"_a, "residual"_a.none(), "y"_a);
  m.def("prepare", &prepare, "dtype"_a, "channels_first"_a, "taps"_a, "channels"_a,
        "depth_multiplier"_a, "filters"_a, "depthwise_kernel"_a.none(), "depthwise_bias"_a.none(),
        "pointwise_kernel"_a.none(), "bias"_a.none(), "depthwise_activation"_a, "activation"_a);
  m.def("plan", &plan, "geometry"_a, "dtype"_a, "pass_"_a, "threads"_a, "filters"_a = 0,
        "packed"_a = false, "overrule"_a.none() = nb::none());
  m.def("plan_pointwise", &plan_pointwise, "images"_a, "pixels"_a, "channels"_a, "filters"_a,
        "channels_first"_a, "dtype"_a, "pass_"_a, "threads"_a, "packed"_a = false);
  m.def(
      "num_threads", &sepconv::num_threads,
      "The most threads that a call uses.\n\n"
      "Returns:\n"
      "    At first the number in the variable SEPCONV_NUM_THREADS, else the number of processors\n"
      "    that this process may use.\n\n"
      "Example:\n"
      "    >>> sepconv.num_threads() >= 1\n"
      "    True");
  m.def("set_num_threads", &sepconv::set_num_threads, "count"_a,
        "Sets the most threads that a call uses, for the whole process.\n\n"
        "Args:\n"
        "    count: from 1 to 256.\n\n"
        "Raises:\n"
        "    ValueError: it is another number.\n\n"
        "Example:\n"
        "    >>> sepconv.set_num_threads(2)");
  m.def("adopt_openmp", &sepconv::adopt_openmp, "library"_a);
  m.def(
      "isa_name", &sepconv::isa_name,
      "The instruction-set level in use.\n\n"
      "Returns:\n"
      "    Its name, such as 'x86-64-v3': the highest that runs here, or the one in the variable\n"
      "    SEPCONV_ISA.\n\n"
      "Example:\n"
      "    >>> sepconv.isa_name()  # on a machine with AVX2\n"
      "    'x86-64-v3'");
  m.def("measure_fma", &measure_fma, "threads"_a, "seconds"_a, "dtype"_a = 0);
  m.def("measure_fma", &measure_integers, "threads"_a, "seconds"_a, "dtype"_a);
  m.def("measure_bandwidth", &measure_bandwidth, "bytes"_a, "threads"_a, "seconds"_a);
}
