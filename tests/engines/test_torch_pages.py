"""PyTorch: results ask for huge pages, and kept memory has no page faults.

Scripts run in processes of their own, which have no memory of before that an array might get.
"""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from helpers.processes import printed_number

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

STEPS = """
import resource, sys
import torch
import sepconv.torch
if sys.argv[1] == "kept":
    assert sepconv.torch.keep_memory()
x = torch.ones(1 << 24)  # 64 MiB, more than the C library ever keeps by itself
for i in range(12):
    if i == 6:  # some blocks take turns
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    y = x * 2
    del y
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

RESULT = """
import re
from pathlib import Path
import torch
from sepconv.torch import depthwise_conv2d

def huge(tensor):  # whether Linux was advised so of the middle of its memory
    inside, address = False, tensor.data_ptr() + tensor.nbytes // 2
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            first, last = (int(each, 16) for each in found.groups())
            inside = first <= address < last
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()

x, kernel = torch.ones(1, 512, 512, 64), torch.ones(1, 1, 64, 1)  # 64 MiB: a mapping of its own
y = depthwise_conv2d(x, kernel)
assert torch.equal(y, x)
print(10 * huge(x) + huge(y))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not GNU's C library")
def test_steps_have_no_new_memory():
    faults = {way: printed_number(STEPS, way) for way in ("kept", "given back")}
    assert faults["kept"] < faults["given back"] / 2, faults


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="the system has no huge pages")
def test_a_large_result_asks_for_huge_pages():
    assert printed_number(RESULT) == 1  # the result does, its input does not
