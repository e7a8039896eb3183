"""Which kernel serves each layer of the benchmark, and how its work is cut; no kernel runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.plans import LEVELS, PASSES, of_level, plan

from sepconv import _native
from sepconv.bench.workloads import WORKLOADS
from sepconv.geometry import conv_spec, resolve

TABLE = Path(__file__).parent.parent / "helpers" / "plans.txt"
F32 = 0


@pytest.mark.parametrize("level", LEVELS)
def test_choices_are_those_of_the_table(level):
    """plans.py, which makes the table, says what its words mean."""
    done = of_level(level)
    if done.returncode != 0:
        assert "SEPCONV_ISA must be one of the levels that run here" in done.stderr
        pytest.skip("does not run here")
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    expected = [line for line in lines if line.split()[0] == level]
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_threads_do_not_change_what_is_summed_up(workload):
    for batch in workload.batches:
        for pass_, separable in PASSES:
            if "kernel_gradient" not in pass_ or (separable and workload.filters is None):
                continue
            plans = [plan(workload, batch, pass_, n, separable) for n in (1, 2, 3, 64)]
            names = ("kernel", "bands", "band_rows", "row_pieces", "groups")
            sums = {
                (p["images"], *(step[name] for step in p["steps"] for name in names)) for p in plans
            }
            assert len(sums) == 1


def test_tasks_are_what_work_is_cut_into():
    for workload in WORKLOADS:
        for pass_, separable in PASSES[:3]:
            made = plan(workload, 2, pass_, 2, separable)
            for step in made["steps"]:
                cut = made["images"] * step["bands"] * step["row_pieces"]
                assert step["tasks"] == (step["groups"] or cut) * step["channel_parts"]
                assert step["scratch_bytes"] >= 0


def test_scratch_is_small():
    """A task's memory stays in a second cache or near it, whatever the image's size."""
    geometry = resolve(conv_spec(padding="same"), (1, 4096, 4096, 64), (3, 3, 64, 1))
    for pass_ in ("forward", "input_gradient", "kernel_gradient"):
        (step,) = _native.plan(geometry, F32, pass_, 2)["steps"]
        assert step["scratch_bytes"] + step["kept_bytes"] < 4 << 20


def test_a_product_alone_is_planned_in_either_layout():
    for first in (False, True):
        (step,) = _native.plan_pointwise(2, 784, 64, 96, first, F32, "forward", 2)["steps"]
        assert (step["kind"], step["kernel"]) == ("pointwise", "none")
        images = 2 if first else 1
        assert step["tasks"] == images * step["bands"] * step["filter_parts"]
        assert step["bands"] * step["band_rows"] >= 2 * 784 // images


def test_no_images_have_no_steps():
    geometry = resolve(conv_spec(), (0, 8, 8, 4), (3, 3, 4, 1))
    assert _native.plan(geometry, F32, "forward", 2) == {"images": 0, "steps": []}


def test_what_there_is_no_plan_of_is_named():
    geometry = resolve(conv_spec(), (1, 8, 8, 4), (3, 3, 4, 1))
    for arguments, message in (
        (("sideways", 2), "no such pass"),
        (("forward", 0), "threads must be from 1"),
        (("pointwise_kernel_gradient", 2), "no such pass"),
        (("ordinary_forward", 2), "no such pass"),
        (("forward", 2, -1), "filters"),
    ):
        with pytest.raises(ValueError, match=message):
            _native.plan(geometry, F32, *arguments)
    twice = resolve(conv_spec(), (1, 8, 8, 4), (3, 3, 4, 2))
    with pytest.raises(ValueError, match="not that of an ordinary convolution"):
        _native.plan(twice, F32, "ordinary_forward", 2, 8)
    with pytest.raises(ValueError, match="no such pass"):
        _native.plan_pointwise(1, 64, 8, 8, False, F32, "kernel_gradient", 2)
    with pytest.raises(ValueError, match="sizes must be positive"):
        _native.plan_pointwise(1, 64, 0, 8, False, F32, "forward", 2)
