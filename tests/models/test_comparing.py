"""How far apart outputs are, how far they may be, and inputs moved by one unit of precision."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.networks import numbers

from sepconv.models.comparing import allowed, difference, differences, moved


def test_differences_of_arrays():
    one = np.array([1.0, -4.0])
    assert difference([one], [one + 1]) == 0.25
    assert difference([np.array([np.nan, np.inf, 2.0])], [np.array([np.nan, np.inf, 3.0])]) == 0.5
    assert difference([np.array([np.nan, 1.0])], [np.array([1.0, 1.0])]) == np.inf
    assert difference([np.array([np.inf])], [np.array([-np.inf])]) == np.inf
    assert difference([np.array(["a", "b"])], [np.array(["a", "b"])]) == 0
    assert difference([np.array(["a", "b"])], [np.array(["a", "c"])]) == np.inf
    assert differences([np.array([True, False])], [np.array([True, True])]) == [0.5]
    assert difference([one], [one, one]) == np.inf
    assert difference([np.zeros(2)], [np.zeros(2)]) == 0
    assert difference([np.zeros(2)], [np.full(2, 1e-30)]) == np.inf


def test_bounds_are_thirty_times_what_one_unit_does():
    one = np.array([1.0, 2.0])
    assert allowed([one], [one], 2.0**-23) == [1e-4]
    assert allowed([one], [one * (1 + 1e-5)], 2.0**-23) == [pytest.approx(3e-4)]
    assert allowed([one], [one], 2.0**-10) == [2.0**-7]
    assert allowed([np.array([1])], [np.array([1])], 2.0**-10) == [0.0]
    assert allowed([np.arange(100)], [np.arange(100) % 99], 2.0**-23) == [pytest.approx(0.3)]


def test_moving_by_one_unit():
    x = numbers(1000)
    near = moved({"x": x, "n": np.arange(3)}, 2.0**-23)
    assert (near["n"] == np.arange(3)).all()
    steps = np.abs(near["x"] - x) / np.spacing(np.abs(x))
    assert set(np.unique(steps)) <= {0.5, 1.0}
    assert (near["x"] > x).any()
    assert (near["x"] < x).any()
