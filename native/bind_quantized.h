// The part of sepconv._native that has convolutions of int8 alone, for NumPy arrays.
#pragma once
#include <nanobind/nanobind.h>

void bind_quantized(nanobind::module_& m);
