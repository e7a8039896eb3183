"""The right answers of a case, and that sepconv gives them."""

import numpy as np
import pytest
from helpers.benchmarks import MULTIPLIED, SMALL

from sepconv.arrays import DTYPES
from sepconv.bench import cases, peers
from sepconv.bench.workloads import MODES, Case


@pytest.mark.parametrize("mode", MODES)
def test_answers_are_the_reference_s(mode):
    from sepconv import reference

    case = Case(SMALL, 2, mode)
    inputs, answers = cases.make(case)
    assert case.training == ("dx" in answers)
    if case.operation == "pointwise":
        expected = inputs["x"].astype(float) @ inputs["pointwise_kernel"].astype(float)
    else:
        arrays = [inputs["x"], inputs["depthwise_kernel"]]
        function = reference.depthwise_conv2d
        if case.operation == "separable":
            arrays.append(inputs["pointwise_kernel"][None, None])
            function = reference.separable_conv2d
        activation = "relu6" if case.epilogue else None
        options = {"strides": 2, "padding": "same", "activation": activation}
        expected = function(*arrays, inputs.get("bias"), **options)
    np.testing.assert_allclose(answers["y"], expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_the_answers_are_differences():
    case = Case(SMALL, 1, "separable-training+relu6")
    inputs, answers = cases.make(case)
    from sepconv import reference

    def loss(**changed):
        a = {name: array.astype(float) for name, array in (inputs | changed).items()}
        kernels = a["depthwise_kernel"], a["pointwise_kernel"][None, None]
        options = {"strides": 2, "padding": "same", "activation": "relu6"}
        y = reference.separable_conv2d(a["x"], *kernels, a["bias"], **options)
        return (y * a["dy"]).sum()

    rng = np.random.default_rng(0)
    for name in ("x", "depthwise_kernel", "pointwise_kernel", "bias"):
        step = 1e-5 * rng.standard_normal(inputs[name].shape)
        exact = inputs[name].astype(float)
        difference = loss(**{name: exact + step}) - loss(**{name: exact - step})
        np.testing.assert_allclose(difference / 2, (answers[f"d{name}"] * step).sum(), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_inputs_are_numbers_of_the_dtype(dtype):
    pytest.importorskip("ml_dtypes")
    case = Case(SMALL, 2, "separable-training+relu6", dtype)
    inputs, answers = cases.make(case)
    for name, array in cases.typed(case, inputs).items():
        assert array.dtype.name == dtype
        assert inputs[name].dtype == np.float32
        np.testing.assert_array_equal(array.astype(np.float32), inputs[name])
    assert all(array.dtype == np.float64 for array in answers.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_within_the_tolerance_may_be_rounded_but_not_wrong(dtype):
    """Rounding twice passes; one output pixel in a hundred that is missing does not."""
    pytest.importorskip("ml_dtypes")
    case = Case(SMALL, 8, "separable", dtype)
    _, answers = cases.make(case)
    y = answers["y"]
    rounded = (y.astype(cases.numpy_dtype(dtype)) * 1).astype(float)
    twice = (1.5 * rounded).astype(cases.numpy_dtype(dtype)).astype(float) / 1.5
    assert cases.relative_error(twice, y) <= cases.TOLERANCES[dtype]
    wrong = y.copy()
    wrong.reshape(-1, y.shape[3])[::100] = 0
    assert cases.relative_error(wrong, y) > cases.TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_ours_gives_the_right_answers_in_every_mode(dtype):
    pytest.importorskip("ml_dtypes")
    ours = peers.load(peers.OURS)(1)
    tolerance = {"float32": 1e-5}.get(dtype, cases.TOLERANCES[dtype])
    for workload in (SMALL, MULTIPLIED):
        for mode, (operation, *_) in MODES.items():
            if operation != "depthwise" and workload.filters is None:
                continue
            case = Case(workload, 2, mode, dtype)
            inputs, answers = cases.make(case)
            for build in ours.builds(case, inputs, True).values():
                prepared = build()
                received = prepared.outputs(prepared.run())
                for name, answer in answers.items():
                    assert received[name].dtype.name == dtype
                    assert cases.relative_error(received[name], answer) < tolerance, (case, name)
