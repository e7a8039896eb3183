#!/bin/sh
# `make test`: style and types, the tests that run once, and those that run on every engine named.
#
#   PY=python CLANG_FORMAT='clang-format -n FILES' PYTEST='-m pytest' tools/test.sh jax torch
#
# Every part runs, whatever came of the ones before it; one that fails fails the whole.
set -u

failed=
run() {
  echo "== $1"
  shift
  env "$@" || failed=yes
}

# CLANG_FORMAT and PYTEST are commands with arguments, which the shell is to split.
run "formatting" "$PY" -m ruff format --check .
run "formatting of C++" $CLANG_FORMAT
run "style" "$PY" -m ruff check .
run "types" "$PY" -m mypy
run "core, commands and documents" "$PY" $PYTEST \
  tests/core tests/cli tests/bench tests/demo tests/explain tests/program tests/onnx_file tests/quantization tests/docs
case " $* " in
  *" torch "*) run "PyTorch's modules" SEPCONV_TEST_ENGINES=torch "$PY" $PYTEST tests/modules ;;
esac
for engine in "$@"; do
  run "engines, layers and models on $engine" SEPCONV_TEST_ENGINES="$engine" KERAS_BACKEND="$engine" \
    "$PY" $PYTEST tests/engines tests/layers tests/models
done
if [ -n "$failed" ]; then
  echo "make test: FAILED"
  exit 1
fi
echo "make test: all passed on $*"
