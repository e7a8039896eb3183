"""TensorFlow: our declarations of its C API agree with the headers it is installed with."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

tf = pytest.importorskip("tensorflow")

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "native" / "tensorflow_c_api.h"
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
INCLUDE = Path(tf.sysconfig.get_include())

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(not (INCLUDE / "tensorflow/c/ops.h").exists(), reason="no headers"),
]


def compiles(header: Path) -> subprocess.CompletedProcess:
    flags = ["-std=c++20", "-fsyntax-only", "-DSEPCONV_TENSORFLOW_HEADERS", f"-I{INCLUDE}"]
    return subprocess.run(
        [COMPILER, *flags, "-x", "c++", "-include", str(header), os.devnull],
        capture_output=True,
        text=True,
    )


def test_declarations_agree_with_the_installed_headers():
    done = compiles(HEADER)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(const char*, TF_KernelBuilder*, ", "(TF_KernelBuilder*, const char*, "),
        ("TF_GetInput, (TF_OpKernelContext*, int, ", "TF_GetInput, (TF_OpKernelContext*, long, "),
        ("X(int64_t, TF_Dim", "X(int32_t, TF_Dim"),
        ("TF_RESOURCE_EXHAUSTED == 8", "TF_RESOURCE_EXHAUSTED == 9"),
    ],
)
def test_a_wrong_declaration_would_be_noticed(tmp_path, right, wrong):
    text = HEADER.read_text()
    changed = tmp_path / "changed.h"
    assert right in text
    changed.write_text(text.replace(right, wrong))
    assert compiles(changed).returncode != 0


def test_every_function_is_exported_by_the_installed_library():
    (library,) = [f[2:] for f in tf.sysconfig.get_link_flags() if f.startswith("-L")]
    names = list(Path(library).glob("libtensorflow_framework*"))
    handle = ctypes.CDLL(str(names[0]))
    functions = re.findall(r"X\([^,]+, (TF_\w+),", HEADER.read_text())
    assert len(functions) > 25
    assert [name for name in functions if not hasattr(handle, name)] == []
