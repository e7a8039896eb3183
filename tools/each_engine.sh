#!/bin/sh
# Runs a command once an engine, whatever came of the engines before; one that fails fails the whole.
#
#   tools/each_engine.sh "jax torch" python -m pytest tests/gpu
set -u

engines=$1
shift
failed=
for engine in $engines; do
  echo "== $engine"
  SEPCONV_TEST_ENGINES="$engine" KERAS_BACKEND="$engine" "$@" || failed=yes
done
test -z "$failed"
