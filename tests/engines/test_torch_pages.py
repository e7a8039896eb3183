"""PyTorch: results ask for huge pages, and kept memory has no page faults."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest
import torch
from helpers.processes import printed_number

from sepconv.torch import depthwise_conv2d

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not GNU's C library")
def test_steps_have_no_new_memory():
    faults = {way: printed_number(STEPS, way) for way in ("kept", "given back")}
    assert faults["kept"] < faults["given back"] / 2, faults


def flags_of_memory(address):
    """What Linux says of the mapping that has an address, such as `hg` where advised to be huge."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            first, last = (int(each, 16) for each in found.groups())
            inside = first <= address < last
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("no mapping has this address")


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="the system has no huge pages")
def test_a_large_result_asks_for_huge_pages():
    x, kernel = torch.ones(1, 512, 512, 64), torch.ones(1, 1, 64, 1)  # 64 MiB: a mapping of its own
    y = depthwise_conv2d(x, kernel)
    assert torch.equal(y, x)
    assert "hg" in flags_of_memory(y.data_ptr() + (32 << 20))
    assert "hg" not in flags_of_memory(x.data_ptr() + (32 << 20))
