"""Models that nobody wrote: what sepconv makes of them is held against them.

`make fuzz-models` goes on where these seeds end. One of them alone: ``-k 'seed17'``.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from generated_models import cases, checks, narrow
from helpers import quick

JAX = keras.backend.backend() == "jax"
#: JAX compiles each operation once a shape, which is nearly all of the time: it gets fewer.
SEEDS = range(40 if JAX else 60)
#: One of so many models is trained too, which takes longest.
TRAINED = 10 if JAX else 3


@pytest.fixture(autouse=True)
def _quickly():
    with quick.eager(), quick.one_thread():
        yield


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed{seed}")
def test_what_sepconv_makes_of_a_model(seed, tmp_path):
    train = seed % TRAINED == 0
    case = cases.make(seed, train)
    outcome = checks.check(case, tmp_path, train)
    assert not outcome.failures, f"{case}\n" + "\n".join(map(str, outcome.failures[:8]))


@pytest.mark.parametrize("seed", SEEDS[::8], ids=lambda seed: f"seed{seed}")
def test_what_sepconv_makes_of_a_model_in_a_half_type(seed, tmp_path):
    case = cases.make(seed, train=False)
    outcome = narrow.check(case, tmp_path)
    assert not outcome.failures, f"{case}\n" + "\n".join(map(str, outcome.failures[:8]))


@pytest.mark.parametrize("seed", SEEDS[::6], ids=lambda seed: f"seed{seed}")
def test_no_layer_can_change_unnoticed(seed):
    case = cases.make(seed)
    moved = {layer.name: apart for layer, apart in cases.changed_layers(case)}
    assert moved
    assert min(moved.values()) > case.bound, moved


def test_a_seed_makes_one_model():
    first, second = cases.make(SEEDS[4]), cases.make(SEEDS[4])
    assert str(first) == str(second)
    assert first.model is not second.model
    expected, found = (cases.predict(c.model, c.inputs) for c in (first, second))
    assert cases.distance(expected, found) == 0
    for one, other in zip(first.model.variables, second.model.variables, strict=True):
        np.testing.assert_array_equal(cases.values_of(one), cases.values_of(other))


def test_a_promised_error_is_no_failure_and_another_is(monkeypatch, tmp_path):
    """The check itself: an error that no refusal promises is found, as is a wrong copy."""
    import sepconv

    case = next(c for c in map(cases.make, SEEDS) if not c.features & {"subclassed", "no config"})

    def broken(model):
        raise ValueError("cannot be copied, which takes a config")

    monkeypatch.setattr(sepconv, "accelerate", broken)
    outcome = checks.check(case, tmp_path, train=False)
    assert ("accelerate", "raises") in {f[:2] for f in outcome.failures}
