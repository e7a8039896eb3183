#!/bin/sh
# The C++ tests and the core tests of Python under Address-, UndefinedBehavior- and ThreadSanitizer.
#
#   PY=python tools/sanitize.sh
set -eu

tools/native.sh build/sanitize-address -DSEPCONV_SANITIZE=address,undefined
build/sanitize-address/tests/native/sepconv_native_test 0.3
tools/native.sh build/sanitize-thread -DSEPCONV_SANITIZE=thread
TSAN_OPTIONS=halt_on_error=1 build/sanitize-thread/tests/native/sepconv_native_test 0.1

"$PY" -m pip install --quiet --disable-pip-version-check \
  --no-build-isolation --no-deps --upgrade --target build/sanitize-python/site \
  -Cbuild-dir=build/sanitize-python/build -Ccmake.define.SEPCONV_SANITIZE=address,undefined .
# Python itself has no sanitizer: the library is preloaded, its report of leaks (Python's own) is off,
# and the modules under test are found beside it.
library() { "${CXX:-c++}" -print-file-name="$1"; }
env LD_PRELOAD="$(library libasan.so) $(library libstdc++.so)" \
  ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 PYTHONPATH=build/sanitize-python/site \
  "$PY" -m pytest -p no:cacheprovider tests/core \
  --deselect tests/core/test_imports.py --deselect tests/core/test_stress.py
echo "make sanitize: clean"
