#!/bin/sh
# How much of the C++ runs in tests: at least 90% of the lines must. PY=python coverage_native.sh jax torch
#
# Counted are the C++ tests and, for the bindings, Python tests with modules that count. All of it
# lies in build/coverage.
set -eu

covered=build/coverage
counted() { PYTHONPATH=$covered/site "$PY" -m pytest -p no:cacheprovider "$@"; }

tools/needs.sh gcov gcc
tools/native.sh $covered/native -DSEPCONV_COVERAGE=ON
"$PY" -m pip install --quiet --disable-pip-version-check \
  --no-build-isolation --no-deps --upgrade --target $covered/site \
  -Cbuild-dir=$covered/modules -Ccmake.define.SEPCONV_COVERAGE=ON .
find $covered -name '*.gcda' -delete
$covered/native/tests/native/sepconv_native_test 0.3
counted tests/core --deselect tests/core/test_stress.py --deselect tests/core/test_imports.py
counted tests/bench/test_roofline.py -k 'machine_is_measured or measuring'
for engine in "$@"; do
  export SEPCONV_TEST_ENGINES="$engine" KERAS_BACKEND="$engine"
  counted "tests/engines/test_${engine}_values.py" "tests/engines/test_${engine}_errors.py" \
    "tests/engines/test_${engine}_fused.py"
done
"$PY" -m gcovr --root . --filter native/ --exclude native/tensorflow_stub.cc --merge-lines \
  --merge-mode-functions=separate --fail-under-line 90 $covered/native $covered/modules
