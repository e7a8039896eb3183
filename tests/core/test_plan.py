"""Which kernel serves each layer of the benchmark, pinned; no kernel runs."""

from __future__ import annotations

import pytest

import sepconv
from sepconv import _native
from sepconv.bench.workloads import WORKLOADS, Workload
from sepconv.geometry import conv_spec, resolve

F32 = 0
PASSES = ("forward", "input_gradient", "kernel_gradient")


def plan(workload: Workload, batch: int, pass_: str, threads: int) -> dict[str, str | int]:
    spec = conv_spec(workload.strides, workload.padding, workload.dilation)
    geometry = resolve(spec, workload.x_shape(batch), workload.kernel_shape)
    return _native.plan(geometry, F32, pass_, threads)


def expected(workload: Workload) -> tuple[str, str, str]:
    """The kernels of the three passes at x86-64-v4."""
    if workload.name == "eegnet/spatial":
        return ("flat", "flat", "flat")
    if workload.channels * workload.depth_multiplier < 16:
        return ("planar", "planar", "planar")
    small = max(workload.kernel) == 3 and workload.kernel in ((3, 3), (1, 3), (3, 1))
    kernel = "small" if small else "channelwise"
    back = "stride2" if workload.strides == (2, 2) and workload.kernel == (3, 3) else "channelwise"
    return (kernel, back, kernel)


@pytest.mark.skipif(sepconv.isa_name() != "x86-64-v4", reason="the table is that of x86-64-v4")
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_kernels(workload):
    found = tuple(plan(workload, 1, p, 2)["kernel"] for p in PASSES)
    assert found == expected(workload)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_threads_do_not_change_what_is_summed_up(workload):
    for batch in workload.batches:
        plans = [plan(workload, batch, "kernel_gradient", threads) for threads in (1, 2, 3, 64)]
        sums = {tuple(p[n] for n in ("kernel", "bands", "band_rows", "groups")) for p in plans}
        assert len(sums) == 1
