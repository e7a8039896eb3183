"""Nothing above x86-64-v2 runs before the processor was asked: where the instructions are."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
#: A level's own functions; everything else may run on any processor. objdump leaves names that are
#: nested too deeply as the compiler wrote them, with the length before each part.
HIGHER = re.compile(r"sepconv::v[34]\w*::|^_Z\w*7sepconv\d+v[34]")
#: VEX and EVEX encodings: AVX, AVX2, FMA, AVX-512. `verr` and `verw` are old.
AVX = re.compile(r"^\s+[0-9a-f]+:\s+(v(?!err|erw)\w+|k(?:mov|or|and|test|unpck)\w*)\s")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")


def _library() -> Path:
    """The newest library built from this tree, which has its symbols; installed ones have not."""
    found = [
        path
        for path in ROOT.glob("build/*/libsepconv_core.so")
        if not re.match(r"sanitize|fuzz|aarch64", path.parent.name)
    ]
    if not found:
        pytest.skip("there is no build folder")
    return max(found, key=lambda path: path.stat().st_mtime)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64's levels")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
def test_no_instruction_above_the_baseline_outside_its_level():
    dump = subprocess.Popen(
        ["objdump", "-d", "-C", "--no-show-raw-insn", str(_library())],
        stdout=subprocess.PIPE,
        text=True,
    )
    function, higher, lower, stray = "", 0, 0, set()
    for line in dump.stdout:
        if match := FUNCTION.match(line):
            function = match.group(1)
        elif AVX.match(line):
            if HIGHER.search(function):
                higher += 1
            else:
                stray.add(function)
        elif "sepconv::" in function:
            lower += 1
    assert dump.wait() == 0
    assert lower > 1000, "the library has no symbols"
    assert higher > 1000, "the higher levels were not found"
    assert not stray, sorted(stray)[:10]
