"""What a layer's weights multiply, and rounding by it."""

from __future__ import annotations

import numpy as np
import pytest

from sepconv.geometry import conv_spec
from sepconv.program.network import Input, Network, Step
from sepconv.quantization.moments import adapt, moments

_PLAIN = {"depthwise_activation": "none", "activation": "none"}


def _network(step: Step, kernel: np.ndarray, channels: int) -> Network:
    shape = (None, None, None, channels)
    return Network("float32", [Input("x", shape)], [step], [1], ["y"], [kernel])


def _windows(x: np.ndarray, size: int) -> np.ndarray:
    """All windows inside the images, [count, size, size, channels]."""
    seen = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return seen.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size, size, x.shape[-1])


@pytest.mark.parametrize("depthwise", [False, True])
def test_moments_are_those_of_all_windows(depthwise: bool) -> None:
    draw = np.random.default_rng(0)
    x = draw.standard_normal((3, 6, 7, 4)).astype("float32") + 1
    spec = {"spec": conv_spec(padding="valid"), **_PLAIN}
    part = "depthwise_kernel" if depthwise else "pointwise_kernel"
    shape = (3, 3, 4, 1) if depthwise else (3, 3, 4, 5)
    step = Step("convolution", "c", [0], spec, {part: 0})
    found = moments(_network(step, draw.standard_normal(shape).astype("float32"), 4), [x])[0]
    windows = _windows(x.astype("float64"), 3)
    if depthwise:
        for c in range(4):
            rows = windows[..., c].reshape(-1, 9)
            np.testing.assert_allclose(found.mean[c], rows.mean(0), rtol=1e-5)
            expected = np.cov(rows.T, bias=True)
            np.testing.assert_allclose(found.covariance[c], expected, atol=1e-4)
    else:
        rows = windows.reshape(-1, 36)
        np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(found.covariance, np.cov(rows.T, bias=True), atol=1e-4)


@pytest.mark.parametrize("depthwise", [False, True])
def test_sums_err_less_than_of_weights_rounded_one_by_one(depthwise: bool) -> None:
    draw = np.random.default_rng(1)
    taps, outputs = (9, 6) if depthwise else (96, 6)
    mixing = draw.standard_normal((taps, taps)) @ np.diag(np.linspace(2, 0.05, taps))
    rows = draw.standard_normal((2000, taps)) @ mixing
    covariance = np.cov(rows.T, bias=True)
    if depthwise:
        covariance = np.stack([covariance] * outputs)
    matrix = draw.standard_normal((taps, outputs)) * 3
    scale = np.full(outputs, 0.5)
    together = adapt(matrix, scale, covariance, 0.0)
    assert (together == np.rint(together)).all()
    assert np.abs(together).max() <= 127
    nearest = np.rint(matrix / scale)
    assert (together != nearest).any()

    def error(numbers: np.ndarray) -> float:
        return float(((rows @ (numbers * scale - matrix)) ** 2).mean())

    assert error(together) < 0.7 * error(nearest)


def test_inputs_that_never_vary_are_rounded_one_by_one() -> None:
    matrix = np.array([[0.4, 0.6], [1.6, -0.4]])
    numbers = adapt(matrix, np.ones(2), np.zeros((2, 2)), 0.0)
    np.testing.assert_array_equal(numbers, np.rint(matrix))


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_covariance_of_roundings_alone_decides_nothing(depthwise: bool) -> None:
    draw = np.random.default_rng(2)
    noise = draw.standard_normal((9, 9)) * 1e-9
    covariance = noise + noise.T  # as of inputs that are always the same: some of it is below zero
    assert np.linalg.eigvalsh(covariance).min() < -1e-9
    if depthwise:
        covariance = np.stack([covariance, np.eye(9)])
    matrix = draw.standard_normal((9, 2)) * 3
    found = adapt(matrix, np.full(2, 0.5), covariance, 0.0)
    assert np.abs(found - matrix / 0.5)[:, -1].max() <= 2
    assert (found == np.rint(found)).all()
