// The part of sepconv._native that has batch normalization in training.
#pragma once
#include <nanobind/nanobind.h>

void bind_batch_norm(nanobind::module_& m);
