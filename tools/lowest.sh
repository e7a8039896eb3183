#!/bin/sh
# Makes build/lowest/NAME: the lowest versions that pyproject.toml allows, and the wheel of build/wheel.
#
#   PYTHON=python3.11 PY=.venv/bin/python tools/lowest.sh NAME EXTRA
#
# EXTRA is an extra of pyproject.toml, or `dependencies`: the package's own. An environment has one
# engine, since no one environment can have the lowest versions of all. PyTorch's old releases for
# Linux bring CUDA: 3 GB to download, 5 GB on the disk.
set -eu

folder=build/lowest/$1
export PIP_DISABLE_PIP_VERSION_CHECK=1
rm -rf "$folder"
"$PYTHON" -m venv "$folder"
"$PY" tools/requirements.py "$2" | sed 's/>=/==/' >"$folder/lowest.txt"
"$folder/bin/python" -m pip install --quiet pytest hypothesis -r "$folder/lowest.txt" build/wheel/dist/*.whl
"$folder/bin/python" -m pip list 2>/dev/null | grep -E '^(numpy|keras|jax|jaxlib|torch|tensorflow)'
