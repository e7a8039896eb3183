// Calls the int8 operations of the level in use.
#include "quantized.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/int8_table.h"

namespace sepconv {
namespace {

int64_t elements(int rank, const int64_t* shape) {
  int64_t count = 1;
  for (int axis = 0; axis < rank; ++axis) count *= shape[axis];
  return count;
}

void require_byte(const char* name, int64_t value) {
  if (value < 0 || value > 255)
    throw std::invalid_argument(std::string(name) +
                                " must be 0 to 255. Received: " + std::to_string(value) + ".");
}

void check_rounding(const Requantize& to, int64_t channels) {
  require_byte("A zero point", to.zero_point);
  require_byte("lower", to.lower);
  require_byte("upper", to.upper);
  if (to.lower > to.upper)
    throw std::invalid_argument(
        "lower must be at most upper. Received: lower=" + std::to_string(to.lower) +
        ", upper=" + std::to_string(to.upper) + ".");
  for (int64_t channel = 0; channel < channels; ++channel)
    if (!std::isfinite(to.scale[channel]))
      throw std::invalid_argument(
          "A scale must be finite. Received: " + std::to_string(to.scale[channel]) +
          " of channel " + std::to_string(channel) + ".");
}

// Refuses kernels [rows, channels] of which a sum could leave int32, whatever the bytes are.
void check_sums(const int8_t* kernel, const int32_t* bias, int64_t rows, int64_t channels,
                int64_t zero_point) {
  const int64_t furthest = std::max(zero_point, 255 - zero_point);
  for (int64_t channel = 0; channel < channels; ++channel) {
    int64_t total = 0;
    for (int64_t row = 0; row < rows; ++row)
      total += std::abs(int64_t{kernel[row * channels + channel]});
    const int64_t start = bias == nullptr ? 0 : bias[channel];
    if (std::abs(start) + furthest * total > std::numeric_limits<int32_t>::max())
      throw std::invalid_argument(
          "The sums of an int8 layer must stay within int32; this layer must stay in float. "
          "Received: sums of up to " +
          std::to_string(std::abs(start) + furthest * total) + " in channel " +
          std::to_string(channel) + ".");
  }
}

}  // namespace

void quantize(const QuantizeStep& step, Runner& runner) {
  if (step.count != 0) int8_kernels().quantize(step, runner);
}

void dequantize(const DequantizeStep& step, Runner& runner) {
  if (step.count != 0) int8_kernels().dequantize(step, runner);
}

void lookup(const LookupStep& step, Runner& runner) {
  if (step.count != 0) int8_kernels().lookup(step, runner);
}

void quantized_binary(const QuantizedBinaryStep& step, Runner& runner) {
  if (elements(step.rank, step.shape) != 0) int8_kernels().binary(step, runner);
}

void quantized_mean(const QuantizedMeanStep& step, Runner& runner) {
  if (step.outer * step.inner != 0) int8_kernels().mean(step, runner);
}

void quantized_average_pool(const Geometry& g, const QuantizedAveragePoolStep& step,
                            Runner& runner) {
  if (g.n * g.c * g.ho * g.wo != 0) int8_kernels().average_pool(g, step, runner);
}

PreparedQuantized::PreparedQuantized(const QuantizedWeights& weights,
                                     std::shared_ptr<WeightMemory> memory)
    : weights_(weights),
      memory_(memory != nullptr ? std::move(memory) : std::make_shared<WeightMemory>()) {
  const QuantizedWeights& w = weights;
  require_byte("input_zero_point", w.input_zero_point);
  int64_t zero_point = w.input_zero_point;
  if (w.is_depthwise()) {
    check_rounding(w.depthwise, w.middle());
    check_sums(w.depthwise_kernel, w.depthwise.bias, w.kh * w.kw, w.middle(), zero_point);
    zero_point = w.depthwise.zero_point;
    for (int64_t channel = 0; channel < w.middle(); ++channel)
      weights_.depthwise_large |= std::abs(w.depthwise.scale[channel]) > 0.5f;
  }
  if (w.mixes()) {
    check_rounding(w.output, w.filters);
    check_sums(w.pointwise_kernel, w.output.bias, w.depth(), w.filters, zero_point);
    require_byte("residual_zero_point", w.residual_zero_point);
    if (!std::isfinite(w.residual_scale))
      throw std::invalid_argument(
          "residual_scale must be finite. Received: " + std::to_string(w.residual_scale) + ".");
  }
  const Int8Table& kernels = int8_kernels();
  bytes_ = kernels.packed_bytes(weights_);
  packed_ = memory_->take(bytes_);
  kernels.pack(weights_, packed_);
}

void PreparedQuantized::forward(const Geometry& g, const uint8_t* x, const uint8_t* residual,
                                uint8_t* y, Runner& runner) const {
  if (g.n != 0) int8_kernels().forward(g, weights_, {packed_, x, residual, y}, runner);
}

void PreparedQuantized::forward(const Geometry& g, const uint8_t* x, float* y,
                                Runner& runner) const {
  if (g.n != 0) int8_kernels().forward_floats(g, weights_, {packed_, x, nullptr, y}, runner);
}

QuantizedPlan PreparedQuantized::plan(const Geometry& g, int threads) const {
  if (g.n == 0) return {};
  return int8_kernels().plan(g, weights_, threads);
}

}  // namespace sepconv
