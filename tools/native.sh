#!/bin/sh
# Builds the C++ code and its tests, without Python: native.sh FOLDER [OPTION OF CMAKE ...]
# TARGET=NAME builds one target alone.
set -eu

folder=$1
shift
tools/needs.sh cmake cmake ninja ninja-build
cmake -S . -G Ninja -B "$folder" -DSEPCONV_NATIVE_TESTS=ON -DSEPCONV_WERROR=ON "$@"
cmake --build "$folder" --target "${TARGET:-all}"
