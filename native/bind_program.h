// The part of sepconv._native that makes and runs programs.
#pragma once
#include <nanobind/nanobind.h>

void bind_program(nanobind::module_& m);
