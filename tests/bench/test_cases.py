"""The right answers of a case, and that sepconv gives them."""

import numpy as np
import pytest
from helpers.benchmarks import MULTIPLIED, SMALL

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


def test_ours_gives_the_right_answers_in_every_mode():
    ours = peers.load(peers.OURS)(1)
    for workload in (SMALL, MULTIPLIED):
        for mode, (operation, *_) in MODES.items():
            if operation != "depthwise" and workload.filters is None:
                continue
            case = Case(workload, 2, mode)
            inputs, answers = cases.make(case)
            for build in ours.builds(case, inputs, True).values():
                prepared = build()
                received = prepared.outputs(prepared.run())
                for name, answer in answers.items():
                    assert cases.relative_error(received[name], answer) < 1e-5, (case, name)
