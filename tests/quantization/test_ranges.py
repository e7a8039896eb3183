"""Scales of values: zero is exact, and no other range of those tried has a smaller error."""

import numpy as np
import pytest

from sepconv.quantization.ranges import BINS, Histogram, Scale, best, of_range


def histogram(x):
    counts, _ = np.histogram(x[x != 0], BINS, (x.min(), x.max()))
    return Histogram(float(x.min()), float(x.max()), counts)


def error(x, scale):
    return float(((scale.real(scale.quantized(x)) - x) ** 2).mean())


@pytest.mark.parametrize("ends", [(0.0, 3.0), (-1.0, 7.0), (-5.0, 0.0), (2.0, 3.0), (-9.0, -3.0)])
def test_zero_is_a_number_and_the_ends_are_reached(ends):
    scale = of_range(*ends)
    assert scale.scale == np.float32(scale.scale)
    assert 0 <= scale.zero_point <= 255
    assert scale.real(np.uint8([scale.zero_point])) == 0
    found = scale.real(scale.quantized(np.array(ends)))
    np.testing.assert_allclose(found, ends, atol=scale.scale)


def test_numbers_are_rounded_to_even_and_clamped():
    scale = Scale(0.5, 100)
    x = np.array([-1e9, -0.25, 0.25, 0.75, 1e9, np.nan, np.inf])
    assert scale.quantized(x).tolist() == [0, 100, 100, 102, 255, 100, 255]


@pytest.mark.parametrize("draw", ["normal", "laplace", "relu", "uniform", "outlier", "negative"])
def test_the_best_range_is_hardly_worse_than_any(draw):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(100_000)
    if draw == "laplace":
        x = rng.laplace(size=100_000)
    if draw == "relu":
        x = np.maximum(x, 0)
    if draw == "uniform":
        x = rng.uniform(-1, 2, 100_000)
    if draw == "outlier":
        x[7] = 30.0
    if draw == "negative":
        x = -(x**2)
    chosen = best(histogram(x))
    least = error(x, chosen)
    for low in np.linspace(0.1, 1, 19):
        for high in np.linspace(0.1, 1, 19):
            assert least <= 1.05 * error(x, of_range(low * x.min(), high * x.max()))
    assert least <= 1.001 * error(x, best(histogram(x), extremes=True))
    if draw == "relu":
        assert chosen.zero_point == 0
    if draw == "outlier":
        assert chosen.ends[1] < 29


def test_extremes_are_kept_where_asked():
    x = np.append(np.random.default_rng(0).standard_normal(10_000), 30.0)
    assert best(histogram(x), extremes=True).ends[1] == pytest.approx(30.0, rel=0.01)


def test_a_function_decides_what_is_rounded_finely():
    # All of what is below -8 is next to nothing by silu.
    x = np.random.default_rng(0).uniform(-40, 10, 100_000)

    def silu(x):
        return x / (1 + np.exp(-x))

    chosen, plain = best(histogram(x), silu), best(histogram(x))
    assert plain.ends[0] < -30
    assert chosen.ends[0] > -12

    def after(scale):
        return ((silu(scale.real(scale.quantized(x))) - silu(x)) ** 2).mean()

    assert after(chosen) < after(plain) / 4


def test_bytes_are_kept_as_they_are():
    assert best(Histogram(0.0, 200.0, np.ones(BINS), whole=True)) == Scale(1.0, 0)


@pytest.mark.parametrize("x", [0.0, 5.0, -2.0])
def test_one_number_alone_has_a_scale(x):
    scale = best(Histogram(x, x, np.zeros(BINS)))
    np.testing.assert_allclose(scale.real(scale.quantized(np.array([x]))), x, rtol=1e-6)
