"""Steps of int8 as ONNX, run by ONNX Runtime and held against their reference."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import onnx_files
from helpers.int8_steps import DRAWN, Drawn

from sepconv.program import quantized_reference
from sepconv.program.program import Program

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

#: Why a random step has no result, or none in ONNX.
_LEFT_OUT = (
    *("lies in the padding alone", "does not fit"),
    *("average pooling with dilation", "sizes that are open"),
)


@pytest.mark.parametrize("optimised", [False, True], ids=["as written", "optimised"])
@pytest.mark.parametrize("operation", DRAWN)
def test_a_step_gives_the_references_bytes(operation: str, optimised: bool) -> None:
    """All within one, and nearly all equal; by a random table one is as far as any other.

    Of float32 results, equal are those that differ by no more than rounding.
    """
    compared = apart = 0
    for seed in range(40):
        drawn = Drawn(seed)
        try:
            network = DRAWN[operation](drawn)
            inputs = [x.astype(np.float32) for x in drawn.inputs]
            Program(network)(*inputs)
            model = onnx_files.checked(network)
        except ValueError as error:
            if not any(why in str(error) for why in _LEFT_OUT):
                raise
            continue
        (step,) = (step for step in network.steps if step.operation == operation)
        weights = {part: network.tensors[i] for part, i in step.weights.items()}
        expected = quantized_reference.compute(step, weights, drawn.inputs)
        (found,) = onnx_files.run(model, *inputs, optimised=optimised)
        assert found.shape == expected.shape
        far = np.abs(found - expected)
        if expected.dtype == np.float32:  # sums in float32 on ONNX's side, or bytes before them
            far = far > 1e-5 * np.abs(expected).max()
            assert "depthwise_kernel" in weights or not far.any(), seed
        elif not any(part.endswith("table") for part in weights):
            assert far.max(initial=0) <= 1, seed
        compared, apart = compared + far.size, apart + np.count_nonzero(far)
    assert compared > 1000
    assert apart < 0.002 * compared
