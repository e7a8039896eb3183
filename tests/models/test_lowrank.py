"""The mathematics of factorize: exact at full rank, best below it, better still with data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import sepconv
from sepconv.geometry import conv_spec
from sepconv.models.lowrank import Moments, fit, full_rank
from sepconv.models.ranks import Option, cheaper_ranks, smallest_rank, spend


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def _convolution(x, kernel, spec):
    """By definition, a tap at a time, from the reference's separable convolution at full rank.

    Tap t of channel c gets a depthwise kernel of its own that picks it, and the pointwise
    kernel is the ordinary kernel itself.
    """
    kh, kw, channels, filters = kernel.shape
    picks = np.broadcast_to(
        np.eye(kh * kw).reshape(kh, kw, 1, kh * kw), (kh, kw, channels, kh * kw)
    )
    mixes = kernel.transpose(2, 0, 1, 3).reshape(1, 1, -1, filters)
    return sepconv.reference.separable_conv2d(x, picks, mixes, **spec)


def _separable(x, factors, spec):
    arrays = x, factors.depthwise_kernel, factors.pointwise_kernel, factors.bias
    return sepconv.separable_conv2d(*map(np.ascontiguousarray, arrays), **spec)


def _spec(strides=1, padding="valid", dilation_rate=1, data_format="channels_last"):
    return {
        "strides": strides,
        "padding": padding,
        "dilation_rate": dilation_rate,
        "data_format": data_format,
    }


SPECS = [
    _spec(),
    _spec(strides=2, padding="same"),
    _spec(strides=(1, 3)),
    _spec(dilation_rate=2, padding="same"),
    _spec(strides=(3, 2), dilation_rate=(1, 2), padding=((1, 2), (0, 3))),
    _spec(padding="same", data_format="channels_first"),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kernel_size", [(k, k) for k in range(1, 8)] + [(1, 7), (5, 2)], ids=str)
@pytest.mark.parametrize("filters", [5, 60])
def test_full_rank_is_exact(kernel_size, filters, spec):
    kernel = _random(*kernel_size, 3, filters)
    shape = (2, 3, 17, 15) if spec["data_format"] == "channels_first" else (2, 17, 15, 3)
    x = _random(*shape, seed=1)
    factors = fit(kernel, full_rank(kernel.shape))
    assert factors.rank == min(kernel_size[0] * kernel_size[1], filters)
    assert factors.error < 1e-12
    expected = _convolution(x, kernel, spec)
    np.testing.assert_allclose(_separable(x, factors, spec), expected, rtol=1e-9, atol=1e-9)


def test_below_full_rank_each_channel_is_the_best_of_its_rank():
    kernel = _random(3, 3, 4, 16)
    for rank in range(1, 9):
        factors = fit(kernel, rank)
        lost = 0.0
        for c in range(4):
            values = np.linalg.svd(kernel[:, :, c].reshape(9, 16), compute_uv=False)
            lost += (values[rank:] ** 2).sum()  # Eckart and Young
        assert factors.depthwise_kernel.shape == (3, 3, 4, rank)
        assert factors.error == pytest.approx(np.sqrt(lost) / np.linalg.norm(kernel))
        assert np.linalg.norm(factors.kernel() - kernel) == pytest.approx(np.sqrt(lost))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_moments_are_those_of_the_layers_output(spec):
    kernel = _random(3, 2, 3, 4)
    shape = (3, 3, 12, 13) if spec["data_format"] == "channels_first" else (3, 12, 13, 3)
    x = _random(*shape, seed=1)
    moments = Moments(kernel.shape, conv_spec(**spec))
    moments.add(x[:1])
    moments.add(x[1:])
    y = _convolution(x, kernel, spec)
    y = np.moveaxis(y, 1, 3) if spec["data_format"] == "channels_first" else y
    y = y.reshape(-1, 4)
    flat = kernel.transpose(2, 0, 1, 3).reshape(-1, 4)
    assert moments.count == len(y)
    np.testing.assert_allclose(moments.mean @ flat, y.mean(0), atol=1e-12)
    np.testing.assert_allclose(flat.T @ moments.gram @ flat, y.T @ y / len(y), atol=1e-10)


def test_a_sample_of_patches_is_of_that_size_and_repeats():
    x = _random(4, 9, 9, 2)
    samples = [Moments((3, 3, 2, 1), conv_spec(), sample=5) for _ in range(2)]
    for moments in samples:
        moments.add(x)
        assert moments.count == 4 * 5
    assert np.array_equal(samples[0].gram, samples[1].gram)


def _smooth(images, channels, seed):
    """Pictures whose neighbouring pixels and channels resemble each other, as real ones do."""
    x = _random(images, 14, 14, 4, seed=seed)
    for axis in (1, 2):
        x = x + np.roll(x, 1, axis) + np.roll(x, 2, axis)
    return np.maximum(x @ _random(4, channels, seed=9), 0)


@pytest.mark.parametrize("fit_bias", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_with_data_the_output_loses_less_than_by_plain_svd(rank, fit_bias):
    spec = _spec(padding="same")
    kernel = _random(3, 3, 6, 20)
    moments = Moments(kernel.shape, conv_spec(**spec))
    moments.add(_smooth(30, 6, seed=0))
    plain, aware = fit(kernel, rank), fit(kernel, rank, moments, fit_bias=fit_bias)
    assert aware.error <= aware.svd_error
    if not fit_bias:
        assert not aware.bias.any()
    # What it says holds for the data that it saw, and for data that it did not see.
    for source, tolerance in ((0, 1e-6), (1, 0.05)):
        x = _smooth(30, 6, source)
        y = _convolution(x, kernel, spec)
        errors = [
            np.linalg.norm(_separable(x, factors, spec) - y) / np.linalg.norm(y)
            for factors in (aware, plain)
        ]
        assert errors[0] == pytest.approx(aware.error, rel=tolerance * 2, abs=1e-9)
        assert errors[1] == pytest.approx(aware.svd_error, rel=tolerance * 2)
        assert errors[0] < 0.7 * errors[1]


@st.composite
def _cases(draw):
    """A kernel, how it is applied, and data whose pixels and channels may be alike."""
    kh, kw, channels = (draw(st.integers(1, n), label=n) for n in (7, 7, 5))
    filters, images = draw(st.integers(1, 24)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spec = _spec(
        strides=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        dilation_rate=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        padding=draw(st.sampled_from(["valid", "same"])),
    )
    sources = draw(st.integers(1, channels))
    x = random.normal(size=(images, 15, 14, sources)) @ random.normal(size=(sources, channels))
    for axis in (1, 2):
        for _ in range(draw(st.integers(0, 3))):
            x = x + np.roll(x, 1, axis)
    if draw(st.booleans()):
        x = np.maximum(x, 0)
    # Some channels are larger than others by far; some are dead.
    x = x * 10.0 ** random.uniform(-2, 2, channels) * (random.random(channels) < 0.9)
    kernel = random.normal(size=(kh, kw, channels, filters))
    return kernel, draw(st.integers(1, full_rank(kernel.shape))), spec, x + draw(st.floats(-1, 1))


@seed(0)
@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(_cases(), st.booleans())
def test_with_data_the_output_never_loses_more_than_by_plain_svd(case, fit_bias):
    """Of the output itself, computed with both, and not only by what the fit says."""
    kernel, rank, spec, x = case
    moments = Moments(kernel.shape, conv_spec(**spec))
    moments.add(x)
    plain, aware = fit(kernel, rank), fit(kernel, rank, moments, fit_bias=fit_bias)
    y = _convolution(x, kernel, spec)
    errors = [np.linalg.norm(_separable(x, factors, spec) - y) for factors in (aware, plain)]
    assert aware.error <= aware.svd_error
    # What is left over is the rounding of the moments, of which the errors are differences.
    assert errors[0] <= errors[1] + 1e-9 * np.linalg.norm(y)


def test_errors_fall_with_the_rank():
    kernel = _random(3, 3, 6, 20)
    moments = Moments(kernel.shape, conv_spec())
    moments.add(_smooth(10, 6, seed=0))
    for known in (None, moments):
        errors = [fit(kernel, rank, known).error for rank in range(1, 10)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1e-9


@pytest.mark.parametrize("images", [1, 2])
def test_little_data_never_makes_it_worse_on_that_data(images):
    kernel = _random(5, 5, 8, 12)
    moments = Moments(kernel.shape, conv_spec(strides=4))
    moments.add(_smooth(images, 8, seed=0))
    assert moments.count < 200  # the columns of the patches
    for rank in (1, 3, 11):
        factors = fit(kernel, rank, moments, fit_bias=True)
        assert factors.error <= factors.svd_error
        assert np.isfinite(factors.kernel()).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_data_that_says_nothing(value):
    kernel = _random(3, 3, 3, 8)
    moments = Moments(kernel.shape, conv_spec())
    moments.add(np.full((1, 6, 6, 3), value))
    factors = fit(kernel, 2, moments, fit_bias=True)
    assert factors.error <= factors.svd_error + 1e-12
    assert np.isfinite(factors.kernel()).all()


def test_dead_channels_and_zero_kernels():
    x = _smooth(4, 5, seed=0)
    x[..., 2] = 0
    kernel = _random(3, 3, 5, 8)
    moments = Moments(kernel.shape, conv_spec())
    moments.add(x)
    assert fit(kernel, 2, moments).error < fit(kernel, 2, moments).svd_error
    zero = fit(np.zeros_like(kernel), 2, moments)
    assert zero.error == 0
    assert not zero.kernel().any()
    assert np.isfinite(zero.depthwise_kernel).all()


def test_both_factors_are_equally_long():
    kernel = 100 * _random(3, 3, 2, 16)
    moments = Moments(kernel.shape, conv_spec())
    moments.add(_smooth(10, 2, seed=0))
    for factors in (fit(kernel, 3), fit(kernel, 3, moments)):
        long = np.linalg.norm(factors.depthwise_kernel.reshape(9, 6), axis=0)
        wide = np.linalg.norm(factors.pointwise_kernel.reshape(6, 16), axis=1)
        np.testing.assert_allclose(long, wide)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="rank=0"):
        fit(_random(3, 3, 1, 2), 0)
    with pytest.raises(ValueError, match="4 axes"):
        fit(_random(3, 3, 1), 1)
    with pytest.raises(ValueError, match="kernel must be finite"):
        fit(np.full((3, 3, 1, 2), np.nan), 1)
    with pytest.raises(ValueError, match="data must be finite"):
        Moments((1, 1, 1, 1), conv_spec()).add(np.full((1, 2, 2, 1), np.inf))


@pytest.mark.parametrize(("taps", "filters"), [(1, 8), (9, 1), (9, 8), (9, 64), (49, 256)])
def test_cheaper_ranks_are_those_that_are(taps, filters):
    highest = cheaper_ranks(taps, filters)
    assert highest * (taps + filters) < taps * filters <= (highest + 1) * (taps + filters)


def test_smallest_rank():
    for needed in range(1, 12):
        assert smallest_rank(lambda rank, n=needed: float(rank < n), 0.5, 11) == needed
    assert smallest_rank(lambda rank: 1.0, 0.5, 11) is None
    assert smallest_rank(lambda rank: 0.0, 0.5, 0) is None


def test_spending_meets_the_budget_and_is_near_the_best():
    rng = np.random.default_rng(0)
    for _ in range(30):
        layers = []
        for _ in range(4):
            costs = np.sort(rng.integers(1, 100, 4))[::-1]
            errors = np.sort(rng.random(4))
            errors[0] = 0
            layers.append(
                [
                    Option(i, int(c), float(e))
                    for i, (c, e) in enumerate(zip(costs, errors, strict=True))
                ]
            )
        low = sum(options[-1].cost for options in layers)
        budget = int(rng.integers(low, 1 + sum(options[0].cost for options in layers)))
        chosen = spend(layers, budget)
        assert sum(o.cost for o in chosen) <= budget
        combinations = (
            (sum(o.error for o in choice), sum(o.cost for o in choice))
            for choice in np.array(np.meshgrid(*[range(4)] * 4)).T.reshape(-1, 4)
            for choice in [[options[i] for options, i in zip(layers, choice, strict=True)]]
        )
        best = min(error for error, cost in combinations if cost <= budget)
        worst = max(options[-1].error for options in layers)
        assert sum(o.error for o in chosen) <= best + worst  # a single step from the optimum
        assert spend(layers, low - 1) is None
