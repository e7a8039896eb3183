#!/bin/sh
# `make test-lowest` and `make test-middle`: the wheel of build/wheel with older versions of what it works with.
#
#   PYTHON=python3.11 PY=.venv/bin/python tools/versions.sh lowest jax torch
#
# `lowest` has the lowest versions that pyproject.toml allows, `middle` those of requirements/middle.txt. Each engine
# has an environment of its own, build/lowest/jax, since no one environment can have the lowest versions of all. What
# runs there is said as it begins. Every part runs, whatever came of the ones before it.
#
# PyPI's PyTorch for Linux brings CUDA, 3 GB: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu has the same
# without; where there is neither, TORCH=2.13.0 takes that version in the lowest one's place, and says so.
set -u

versions=$1
shift
export PIP_DISABLE_PIP_VERSION_CHECK=1
failed=

# install NAME EXTRA PACKAGE...: an environment with an extra (or `dependencies`), the wheel and packages to test with.
install() {
  folder=build/$versions/$1
  rm -rf "$folder"
  "$PYTHON" -m venv "$folder" || return 1
  "$PY" tools/requirements.py "$2" >"$folder/wanted.txt" || return 1
  case $versions in
    lowest)
      sed -e 's/>=/==/' ${TORCH:+-e "s/^torch==.*/torch==$TORCH/"} "$folder/wanted.txt" >"$folder/pinned.txt"
      constraints=$folder/pinned.txt ;;
    middle) constraints=requirements/middle.txt ;;
  esac
  shift 2
  "$folder/bin/python" -m pip install --quiet pytest hypothesis "$@" \
    -r "$folder/wanted.txt" -c "$constraints" build/wheel/dist/*.whl || return 1
  "$folder/bin/python" -m pip list 2>/dev/null | grep -E '^(numpy|keras|jax|jaxlib|torch|tensorflow)'
}

run() {
  echo "== $1"
  shift
  env "$@" || failed=yes
}

# The tests are outside of the package's sources, so that the wheel is what they import.
core() {
  python=build/$versions/core/bin/python
  run "core and programs, $versions versions" SEPCONV_TEST_ENGINES= $python -m pytest \
    tests/core tests/program --deselect tests/core/test_stress.py
}

engine() {
  python=build/$versions/$1/bin/python
  run "$1, $versions versions: a convolution and its gradients" $python tests/smoke.py "$1"
  run "$1, $versions versions: values and gradients, layers, programs, optimize, accelerate, patches, saving" \
    SEPCONV_TEST_ENGINES="$1" KERAS_BACKEND="$1" $python -m pytest \
    tests/engines/test_${1}_values.py tests/engines/test_${1}_gradients.py tests/engines/test_${1}_fused.py \
    tests/engines/test_${1}_run_program.py $(ls tests/engines/test_${1}_patch.py 2>/dev/null) tests/layers \
    tests/models/lowering tests/models/test_accelerate.py tests/models/test_compile.py \
    tests/models/test_optimize.py tests/models/test_patch.py tests/models/test_stock.py \
    $(case $1 in jax) echo tests/models/test_jaxpr.py ;; torch) echo tests/modules ;; esac)
}

if install core dependencies; then core; else failed=yes; fi
for name in "$@"; do
  if install "$name" "$name"; then engine "$name"; else failed=yes; fi
done
if [ -n "$failed" ]; then
  echo "make test-$versions: FAILED"
  exit 1
fi
echo "make test-$versions: all passed on $*"
