"""The machine's limits: a case's operations and bytes, its floor, and how limits are measured."""

import math

import numpy as np
import pytest
from helpers.benchmarks import MACHINE, MULTIPLIED, SMALL

from sepconv.arrays import DTYPES
from sepconv.bench import cases, roofline
from sepconv.bench.workloads import WORKLOADS, Case


@pytest.mark.parametrize("workload", [SMALL, MULTIPLIED])
def test_work_counts_the_taps_that_lie_on_the_input(workload):
    from sepconv import reference

    ones = np.ones(workload.x_shape(2)), np.ones(workload.kernel_shape)
    options = {"strides": workload.strides, "padding": workload.padding}
    taps = reference.depthwise_conv2d(*ones, **options).sum()
    assert roofline.work(Case(workload, 2, "depthwise")) == 2 * taps
    assert roofline.work(Case(workload, 2, "depthwise-training")) == 6 * taps


def test_traffic_is_that_of_the_arrays():
    case = Case(SMALL, 2, "separable-training")
    inputs, answers = cases.make(case)
    x, y = inputs["x"].size, answers["y"].size
    weights = inputs["depthwise_kernel"].size + inputs["pointwise_kernel"].size
    assert roofline.traffic(case) == 4 * ((x + y + weights) + (2 * x + y + 3 * weights))
    assert roofline.traffic(case._replace(mode="separable")) == 4 * (x + y + weights)


@pytest.mark.parametrize(("dtype", "ratio"), [("float64", 2), ("bfloat16", 0.5), ("float16", 0.5)])
def test_traffic_is_of_the_dtype(dtype, ratio):
    case = Case(SMALL, 2, "depthwise-training")
    typed = case._replace(dtype=dtype)
    assert roofline.traffic(typed) == ratio * roofline.traffic(case)
    assert roofline.work(typed) == roofline.work(case)


def test_in_int8_weights_alone_are_bytes():
    case = Case(SMALL, 2, "separable", "int8")
    inputs, answers = cases.make(case)
    weights = inputs["depthwise_kernel"].size + inputs["pointwise_kernel"].size
    assert roofline.traffic(case) == 4 * (inputs["x"].size + answers["y"].size) + weights


def test_the_floor_is_the_dearer_of_operations_and_bytes():
    large = next(w for w in WORKLOADS if w.name == "mobilenet_v1/3")
    product = roofline.floor(Case(large, 8, "pointwise"), MACHINE)
    assert (product.bound, product.level) == ("operations", "memory")
    assert product.seconds == 2 * 8 * 56 * 56 * 128 * 128 / 100e9
    alone = roofline.floor(Case(large, 8, "depthwise"), MACHINE)
    assert alone.bound == "bytes"
    assert alone.seconds == alone.bytes / 10e9
    assert roofline.floor(Case(SMALL, 1, "depthwise"), MACHINE).level == "L2"


def test_the_machine_is_measured():
    machine = roofline.measure(1, 0.02)
    assert machine.peak > 1e8
    assert [level.name for level in machine.levels][-1] == "memory"
    assert all(level.bandwidth > 1e8 for level in machine.levels)
    sizes = [level.size for level in machine.levels]
    assert sizes == sorted(sizes)


def test_of_two_measurements_the_higher_limits_count():
    other = roofline.Machine(
        2, 90e9, (roofline.Level("L2", 1e6, 99e9), roofline.Level("memory", math.inf, 9e9))
    )
    best = MACHINE.best_of(other)
    assert best.peak == 100e9
    assert [level.bandwidth for level in best.levels] == [99e9, 10e9]


@pytest.mark.parametrize("dtype", roofline.BYTES)
def test_the_peak_is_that_of_the_dtype(dtype, monkeypatch):
    from sepconv import _native

    def measured(threads, seconds, dtype):
        codes = {**DTYPES, "int8": "int8"}
        return next(name for name, code in codes.items() if code == dtype)

    monkeypatch.setattr(_native, "measure_fma", measured)
    assert roofline.measure(1, 0.001, dtype).peak == dtype
    monkeypatch.undo()
    machine = roofline.measure(1, 0.02, dtype)
    assert machine.dtype == dtype
    assert machine.best_of(machine) == machine
    assert machine.peak > 1e8


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("measure_fma", (0, 1.0), "threads must be from 1"),
        ("measure_fma", (1, 0.0), "seconds must be above 0"),
        ("measure_fma", (1, math.nan), "seconds must be above 0"),
        ("measure_fma", (1, 1.0, 4), "no dtype of the number 4"),
        ("measure_fma", (1, 1.0, "int4"), "products of int8 alone. Received: int4"),
        ("measure_bandwidth", (0, 1, 1.0), "bytes must be at least 1"),
    ],
)
def test_measuring_refuses_what_makes_no_sense(function, arguments, message):
    from sepconv import _native

    with pytest.raises(ValueError, match=message):
        getattr(_native, function)(*arguments)


@pytest.mark.parametrize("dtype", [*range(4), "int8"])
def test_every_dtype_has_a_peak(dtype):
    """By its number in `DType`. Of bfloat16 it may be that of pairs; int8 has one of bytes."""
    from sepconv import _native

    assert 1e8 < _native.measure_fma(1, 0.05, dtype) < 1e13


def test_the_peak_of_int8_is_measured():
    assert roofline.measure_peak(1, 0.02, "int8") > 1e8
