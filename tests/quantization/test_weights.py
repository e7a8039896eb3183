"""Int8 weights: what they stand for, what their sums may reach, and what the bias corrects."""

import numpy as np
import pytest

from sepconv.quantization.weights import fit, kernel_of


@pytest.mark.parametrize(("shape", "depthwise"), [((3, 3, 4, 2), True), ((3, 3, 4, 5), False)])
def test_weights_are_near_and_symmetric(shape, depthwise):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal(shape)
    outputs = 8 if depthwise else 5
    bias = rng.standard_normal(outputs)
    made = fit(kernel_of(kernel, depthwise), bias, 0.02)
    assert made.fits
    assert made.kernel.shape == shape
    assert made.kernel.dtype == np.int8
    assert made.bias.dtype == np.int32
    assert made.kernel.min() >= -127
    scale = made.scale.reshape(4, 2) if depthwise else made.scale
    np.testing.assert_allclose(made.kernel * scale, kernel, atol=0.1)
    np.testing.assert_allclose(made.bias * made.scale * 0.02, bias, atol=0.02)


def test_the_scale_is_no_worse_than_that_of_the_largest_weight():
    kernel = np.random.default_rng(0).standard_normal((64, 32)) ** 3
    square = np.random.default_rng(1).uniform(0, 4, 64)
    made = fit(kernel_of(kernel, False), None, 1.0, square=square)
    plain = np.abs(kernel).max(0) / 127
    rounded = np.rint(kernel / plain) * plain

    def error(found):
        return ((found - kernel) ** 2 * square[:, None]).sum(0)

    assert (error(made.kernel * made.scale) <= error(rounded) * (1 + 1e-9)).all()
    assert (error(made.kernel * made.scale) < error(rounded)).any()


@pytest.mark.parametrize("depthwise", [True, False])
def test_a_corrected_bias_has_no_mean_error(depthwise):
    rng = np.random.default_rng(0)
    kernel = kernel_of(rng.standard_normal((3, 3, 4, 2)), depthwise)
    mean = rng.uniform(1, 5, 4)
    outputs = kernel.matrix.shape[1]
    expected = (kernel.matrix * kernel.taps(mean)).sum(0)

    def apart(made):
        rounded = made.kernel.reshape(kernel.matrix.shape) * made.scale
        found = (rounded * kernel.taps(mean)).sum(0) + made.bias * made.scale * 0.001
        return np.abs(found - expected).max()

    plain = fit(kernel, np.zeros(outputs), 0.001)
    corrected = fit(kernel, np.zeros(outputs), 0.001, mean, correct=True)
    assert apart(plain) > 0.01
    assert apart(corrected) < 1e-4


def test_a_large_bias_beside_tiny_weights_fits():
    made = fit(kernel_of(np.full((4, 2), 1e-12), False), np.array([3.0, 0.0]), 0.1)
    assert made.fits
    assert made.bias[0] * made.scale[0] * 0.1 == pytest.approx(3.0)
    assert made.kernel[:, 1].tolist() == [127] * 4


def test_dead_channels_are_zero():
    made = fit(kernel_of(np.zeros((4, 2)), False), None, 0.1)
    assert made.fits
    assert not made.kernel.any()
    assert not made.bias.any()


@pytest.mark.parametrize("taps", [66_000, 67_000])
def test_sums_that_could_leave_int32_are_told(taps):
    # 255 * 127 * taps.
    made = fit(kernel_of(np.ones((taps, 1)), False), None, 0.1)
    assert made.fits == (taps == 66_000)


def test_weights_that_are_no_numbers_do_not_fit():
    assert not fit(kernel_of(np.array([[np.nan], [1.0]]), False), None, 0.1).fits
    assert not fit(kernel_of(np.array([[np.inf], [1.0]]), False), None, 0.1).fits
