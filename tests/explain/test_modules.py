"""explain_module: a PyTorch module's steps, their work and times."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import sepconv  # noqa: E402
from sepconv.bench.roofline import Level, Machine  # noqa: E402
from sepconv.explain.modules import explain_module  # noqa: E402

MACHINE = Machine(1, 1e9, (Level("memory", math.inf, 1e8),))


@pytest.mark.parametrize("optimized", [False, True])
def test_the_steps_of_a_module(optimized):
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
    x = torch.zeros(2, 3, 8, 8)
    given = sepconv.optimize(module, x).module if optimized else module
    explanation = explain_module(given, x, machine=MACHINE, seconds=0)
    found = explanation.found
    assert found.input_shapes == [(2, 3, 8, 8)]
    by_name = {row.name: row for row in found.rows}
    assert by_name["1"].multiply_adds == 2 * 9 * 8 * 27
    assert by_name["3"].multiply_adds == 2 * 72 * 5
    assert by_name["3"].floor == 2 * by_name["3"].multiply_adds / MACHINE.peak
    assert found.seconds > 0
    text = str(explanation)
    assert ("ProgramModule" if optimized else "Sequential") in text
    assert "floor ms" in text
    with pytest.raises(TypeError, match="example_inputs"):
        explain_module(module, None)
