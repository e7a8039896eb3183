// Picks the instruction set at the first call, and calls its kernels.
#include "dispatch.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "levels.h"

namespace sepconv {
namespace {

Kernels choose_kernels() {
  const std::vector<Level> levels = all_levels();
  const char* wanted = std::getenv("SEPCONV_ISA");
  if (wanted != nullptr && *wanted != '\0') {
    std::string runnable;
    for (size_t i = 0; i < levels.size(); ++i) {
      if (!levels[i].runnable) continue;
      if (std::string(wanted) == levels[i].name) return kernels_of(levels, i);
      runnable += (runnable.empty() ? "" : ", ") + std::string(levels[i].name);
    }
    throw std::invalid_argument("SEPCONV_ISA must be one of the levels that run here: " + runnable +
                                ". Received: SEPCONV_ISA=" + wanted);
  }
  for (size_t i = levels.size(); i-- > 0;)
    if (levels[i].runnable) return kernels_of(levels, i);
  throw std::invalid_argument("sepconv needs a processor with at least the level " +
                              std::string(levels[0].name) + ".");
}

const Kernels& kernels() {
  static const Kernels chosen = choose_kernels();  // an exception leaves it to be tried again
  return chosen;
}

const KernelTable& table(DType dtype) { return kernels().tables[static_cast<int>(dtype)]; }

// An operation of the table of a dtype.
template <class F>
F array_kernel(DType dtype, F ArrayTable::* operation) {
  const int index = static_cast<int>(dtype);
  const F found = index < kArrayDTypes ? kernels().arrays[index].*operation : nullptr;
  if (found == nullptr) throw std::invalid_argument("There is no such operation of this dtype.");
  return found;
}

int64_t elements(int rank, const int64_t* shape) {
  int64_t count = 1;
  for (int axis = 0; axis < rank; ++axis) count *= shape[axis];
  return count;
}

// The sums over a batch of no images; `sums` may be null.
void fill_zeros(DType dtype, void* sums, int64_t elements) {
  if (sums != nullptr) std::memset(sums, 0, static_cast<size_t>(elements * itemsize(dtype)));
}

// Whether an ordinary convolution sees one pixel an output, every pixel in turn: a 1x1 product.
bool is_product(const Geometry& g) {
  return g.kh == 1 && g.kw == 1 && g.sh == 1 && g.sw == 1 && g.h == g.ho && g.w == g.wo;
}

Pointwise product_of(const Geometry& g, int64_t filters) {
  return {g.n, g.h * g.w, g.c, filters, g.channels_first};
}

// A value of `Enum`, whose values are 0 to `last`.
template <class Enum>
Enum checked(const char* what, int64_t code, Enum last) {
  if (code < 0 || code > static_cast<int64_t>(last))
    throw std::invalid_argument("There is no " + std::string(what) + " of the number " +
                                std::to_string(code) + ".");
  return static_cast<Enum>(code);
}

}  // namespace

void forward(DType dtype, const Geometry& g, const Forward& args, Runner& runner) {
  if (g.n == 0) return;  // there may be no memory for one of these images
  if (args.depthwise_kernel != nullptr || !is_product(g)) {
    table(dtype).forward(g, args, runner);
    return;
  }
  table(dtype).pointwise_forward(product_of(g, args.filters),
                                 {.x = args.x,
                                  .pointwise_kernel = args.pointwise_kernel,
                                  .bias = args.bias,
                                  .residual = args.residual,
                                  .y = args.y,
                                  .activation = args.activation,
                                  .packed_kernel = args.packed_kernel},
                                 runner);
}

void backward(DType dtype, const Geometry& g, const Backward& args, Runner& runner) {
  if (g.n != 0) {
    table(dtype).backward(g, args, runner);
    return;
  }
  const int64_t cm = g.c * g.m;
  fill_zeros(dtype, args.ddepthwise, g.kh * g.kw * cm);
  fill_zeros(dtype, args.dpointwise, cm * args.filters);
  fill_zeros(dtype, args.dbias, args.separable() ? args.filters : cm);
}

void pointwise_forward(DType dtype, const Pointwise& p, const PointwiseForward& args,
                       Runner& runner) {
  if (p.images * p.pixels != 0) table(dtype).pointwise_forward(p, args, runner);
}

void pointwise_backward(DType dtype, const Pointwise& p, const PointwiseBackward& args,
                        Runner& runner) {
  if (p.images * p.pixels != 0) {
    table(dtype).pointwise_backward(p, args, runner);
    return;
  }
  fill_zeros(dtype, args.dpointwise, p.channels * p.filters);
  fill_zeros(dtype, args.dbias, p.filters);
}

int64_t packed_kernel_bytes(DType dtype, bool channels_first, int64_t depth, int64_t filters) {
  return table(dtype).packed_bytes(channels_first, depth, filters);
}

void pack_pointwise_kernel(DType dtype, bool channels_first, int64_t depth, int64_t filters,
                           const void* kernel, void* packed) {
  table(dtype).pack_kernel(channels_first, depth, filters, kernel, packed);
}

void batch_norm_forward(DType dtype, const BatchNorm& s, const BatchNormForward& args,
                        Runner& runner) {
  table(dtype).batch_norm_forward(s, args, runner);
}

void batch_norm_backward(DType dtype, const BatchNorm& s, const BatchNormBackward& args,
                         Runner& runner) {
  table(dtype).batch_norm_backward(s, args, runner);
}

void unary(DType dtype, const UnaryStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::unary);
  if (step.count != 0) kernel(step, runner);
}

void binary(DType dtype, const BinaryStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::binary);
  if (elements(step.rank, step.shape) != 0) kernel(step, runner);
}

void scale(DType dtype, const ScaleStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::scale);
  if (step.outer * step.channels * step.inner != 0) kernel(step, runner);
}

void pool(DType dtype, const Geometry& g, const PoolStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::pool);
  if (g.n * g.c * g.ho * g.wo != 0) kernel(g, step, runner);
}

void reduce(DType dtype, const ReduceStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::reduce);
  if (step.outer * step.inner != 0) kernel(step, runner);
}

void softmax(DType dtype, const SoftmaxStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::softmax);
  if (step.outer * step.count * step.inner != 0) kernel(step, runner);
}

void layer_norm(DType dtype, const LayerNormStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::layer_norm);
  if (step.rows * step.count != 0) kernel(step, runner);
}

void resize(DType dtype, const ResizeStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::resize);
  if (step.images * step.h * step.w * step.channels != 0) kernel(step, runner);
}

void copy(DType dtype, const CopyStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::copy);
  if (elements(step.rank, step.shape) != 0) kernel(step, runner);
}

void fill(DType dtype, const FillStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::fill);
  if (step.count != 0) kernel(step, runner);
}

void cast(DType dtype, const CastStep& step, Runner& runner) {
  const auto kernel = array_kernel(dtype, &ArrayTable::cast);
  if (step.count != 0) kernel(step, runner);
}

Plan make_plan(DType dtype, const Geometry& g, const Operation& operation, int threads) {
  const bool ordinary = operation.pass == Pass::ordinary_forward;
  if (operation.filters == 0 && (ordinary || operation.pass == Pass::pointwise_kernel_gradient))
    throw std::invalid_argument("A depthwise step alone has no such pass.");
  if (ordinary && g.m != 1)
    throw std::invalid_argument("The geometry is not that of an ordinary convolution.");
  if (ordinary && is_product(g))
    return make_plan(dtype, product_of(g, operation.filters), Pass::forward, operation.packed,
                     threads);
  return g.n == 0 ? Plan{} : table(dtype).plan(g, operation, threads);
}

Plan make_plan(DType dtype, const Pointwise& p, Pass pass, bool packed, int threads) {
  if (pass == Pass::kernel_gradient || pass == Pass::ordinary_forward)
    throw std::invalid_argument("A 1x1 convolution alone has no such pass.");
  return p.images * p.pixels == 0 ? Plan{} : table(dtype).plan_pointwise(p, pass, packed, threads);
}

DType dtype_of(int64_t code) { return checked("dtype", code, DType::f16); }

Activation activation_of(int64_t code) { return checked("activation", code, Activation::silu); }

const char* isa_name() { return kernels().name; }

const KernelTable& kernels_for(DType dtype) { return table(dtype); }

const Int8Table& int8_kernels() { return kernels().int8; }

const KernelTable& f32_kernels() { return table(DType::f32); }

}  // namespace sepconv
