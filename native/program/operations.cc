// The operations of programs: what each takes, and what makes a step of it.
#include "step.h"

namespace sepconv::program {
namespace {

// The dtypes of inputs that a kind of step takes, a bit each; as in
// src/sepconv/program/dtypes.py.
constexpr unsigned bit(DType dtype) { return 1u << static_cast<int>(dtype); }
constexpr unsigned kCast = bit(DType::f32) | bit(DType::bf16), kFloats = kCast | bit(DType::f64),
                   kBytes = bit(DType::u8), kAny = kFloats | kBytes;

constexpr struct {
  const char* operation;
  int least, most;  // inputs
  unsigned takes;   // dtypes
  StepMaker* make;
} kOperations[] = {
    {"convolution", 1, 2, kFloats, make_convolution},
    {"dense", 1, 2, kFloats, make_dense},
    {"scale", 1, 1, kFloats, make_scale},
    {"unary", 1, 1, kFloats, make_unary},
    {"binary", 2, 2, kFloats, make_binary},
    {"pool", 1, 1, kAny, make_pool},
    {"reduce", 1, 1, kFloats, make_reduce},
    {"concatenate", 1, 256, kAny, make_concatenate},
    {"pad", 1, 1, kAny, make_pad},
    {"slice", 1, 1, kAny, make_slice},
    {"transpose", 1, 1, kAny, make_transpose},
    {"reshape", 1, 1, kAny, make_reshape},
    {"resize", 1, 1, kAny, make_resize},
    {"layer_normalization", 1, 1, kFloats, make_layer_normalization},
    {"softmax", 1, 1, kFloats, make_softmax},
    {"constant", 0, 0, kAny, make_constant},
    {"cast", 1, 1, kCast, make_cast},
    {"quantize", 1, 1, bit(DType::f32), make_quantize},
    {"dequantize", 1, 1, kBytes, make_dequantize},
    {"quantized_convolution", 1, 2, kBytes, make_quantized_convolution},
    {"quantized_dense", 1, 1, kBytes, make_quantized_dense},
    {"dequantized_convolution", 1, 1, kBytes, make_dequantized_convolution},
    {"dequantized_dense", 1, 1, kBytes, make_dequantized_dense},
    {"quantized_binary", 2, 2, kBytes, make_quantized_binary},
    {"lookup", 1, 1, kBytes, make_lookup},
    {"quantized_mean", 1, 1, kBytes, make_quantized_mean},
    {"quantized_average_pool", 1, 1, kBytes, make_quantized_average_pool},
};

}  // namespace

std::unique_ptr<Step> make_step(const StepDescription& d, const std::vector<DType>& inputs,
                                const Memory& memory) {
  for (const auto& one : kOperations) {
    if (d.operation != one.operation) continue;
    const int count = static_cast<int>(d.inputs.size());
    if (count < one.least || count > one.most)
      fail("It takes " + std::to_string(one.least) + " to " + std::to_string(one.most) +
           " inputs. Received: " + std::to_string(count) + ".");
    for (const DType dtype : inputs) {
      if ((one.takes & bit(dtype)) == 0)
        fail("It takes no inputs of " + std::string(name_of(dtype)) + ".");
      if (dtype != inputs[0])
        fail("Its inputs must be of one dtype. Received: " + std::string(name_of(inputs[0])) +
             " and " + name_of(dtype) + ".");
    }
    return one.make(d, inputs.empty() ? DType::f32 : inputs[0], memory);
  }
  fail("There is no such operation.");
}

}  // namespace sepconv::program
