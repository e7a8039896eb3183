#!/bin/sh
# Looks for mistakes and waste in native/ with clang-tidy, by the checks of .clang-tidy.
#
#   PY=.venv/bin/python tools/tidy.sh
#
# Nothing is built. The kernels are read once an instruction-set level and type, as they are compiled.
set -eu

tools/needs.sh cmake cmake ninja ninja-build
bin=$(cd "$(dirname "$PY")" && pwd)
cmake -S . -G Ninja -B build/tidy -DPython_EXECUTABLE="$bin/$(basename "$PY")" \
  -DCMAKE_EXPORT_COMPILE_COMMANDS=ON >/dev/null
printf '%s\n' native/*.cc native/kernels/*.cc |
  xargs -n 1 -P "$(getconf _NPROCESSORS_ONLN)" "$bin/clang-tidy" -p build/tidy --quiet
