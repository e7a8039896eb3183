#!/bin/sh
# Fuzzes the C++ code: fuzz_native.sh CLANG++ SECONDS. What it finds and its corpus stay in build/fuzz.
#
# libFuzzer's coverage (cov: edges reached) and executions are in its last lines.
set -eu

clang=$1 seconds=$2
TARGET=sepconv_fuzz tools/native.sh build/fuzz -DCMAKE_CXX_COMPILER="$clang" -DSEPCONV_FUZZ=ON \
  -DSEPCONV_SANITIZE=address,signed-integer-overflow,shift,integer-divide-by-zero
mkdir -p build/fuzz/corpus
build/fuzz/tests/native/sepconv_fuzz build/fuzz/corpus -max_total_time="$seconds" -max_len=160 \
  -len_control=0 -timeout=60 -rss_limit_mb=8192 -artifact_prefix=build/fuzz/ -print_final_stats=1 \
  -verbosity=1
