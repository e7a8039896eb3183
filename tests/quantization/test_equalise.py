"""Equalised networks are the same function, with channels that are alike."""

import numpy as np
import pytest
from helpers.float_networks import Drawn, data

from sepconv.program import reference
from sepconv.quantization.atoms import split
from sepconv.quantization.equalise import equalise
from sepconv.quantization.observe import observe
from sepconv.quantization.scales import channel_axes


def equalised(network):
    atoms = split(network)
    x = data(network, 8)
    seen = observe(atoms.network, [x], channel_axes(atoms.network))
    return atoms, x, equalise(atoms, seen)


def uneven(drawn):
    """Makes the channels of all layers that were drawn differ by far, in place."""
    for array in drawn.tensors:
        if array.ndim > 1:
            channels = array.shape[-1:] if array.shape[-1] > 1 else array.shape[-2:]
            array *= np.exp(2 * drawn.rng.standard_normal(channels)).astype(array.dtype)


@pytest.mark.parametrize("kind", ["separable", "ordinary", "dense", "depthwise"])
def test_the_function_stays_and_channels_come_closer(kind):
    drawn = Drawn()
    if kind == "separable":
        y = drawn.separable(drawn.separable(0, 8, middle="none"), 6, middle="relu")
    elif kind == "ordinary":
        y = drawn.ordinary(drawn.ordinary(0, 8), 6)
    elif kind == "dense":
        y = drawn.dense(drawn.dense(0, 8, "relu"), 6)
    else:
        y = drawn.depthwise(drawn.depthwise(0), "none")
    uneven(drawn)
    network = drawn.network(y)
    atoms, x, made = equalised(network)
    assert made is not None
    (expected,), (found,) = reference.run(network, x), reference.run(made.network, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    before = reference.values(atoms.network, x)
    after = reference.values(made.network, x)

    def spread(value):
        greatest = np.abs(value).max(tuple(range(value.ndim - 1)))
        return np.log(greatest[greatest > 0]).std()

    assert spread(after[1]) < 0.8 * spread(before[1])
    # What was given stays as it was.
    np.testing.assert_array_equal(reference.run(atoms.network, x)[0], expected)


def test_sums_have_one_scale():
    drawn = Drawn()
    y = drawn.ordinary(0, 8, activation="none")
    y = drawn.separable(y, 8, residual=y, middle="relu", activation="none")
    y = drawn.binary("add", y, drawn.ordinary(y, 8, activation="none"))
    y = drawn.dense(drawn.reduce(drawn.ordinary(y, 8), "mean", [1, 2], False), 3)
    uneven(drawn)
    network = drawn.network(y)
    _, x, made = equalised(network)
    (expected,), (found,) = reference.run(network, x), reference.run(made.network, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    # All layers changed.
    assert not set(range(len(network.tensors))) & {
        number
        for step in made.network.steps
        for part, number in step.weights.items()
        if part.endswith("kernel")
    }


def test_a_clamp_stays_above_what_was_seen():
    drawn = Drawn()
    y = drawn.separable(drawn.ordinary(0, 8, activation="relu6"), 6, middle="relu6")
    uneven(drawn)
    network = drawn.network(y)
    _, x, made = equalised(network)
    (expected,), (found,) = reference.run(network, x), reference.run(made.network, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    before, after = reference.values(network, x)[1], reference.values(made.network, x)[1]
    greatest = [value.max((0, 1, 2)) for value in (before, after)]
    assert (greatest[1] >= greatest[0] * 0.999).all()  # channels are only scaled up
    assert greatest[1].min() > 2 * greatest[0].min()


def test_a_clamp_leaves_room_for_channels_that_are_asleep():
    """A channel that the examples leave at next to nothing is large on other data."""
    drawn = Drawn()
    network = drawn.network(drawn.ordinary(drawn.ordinary(0, 8, activation="relu6"), 6))
    atoms = split(network)
    x = data(network, 8)
    seen = observe(atoms.network, [x], channel_axes(atoms.network))
    greatest = seen[1].channels.greatest.copy()
    greatest[2] = 1e-6
    seen[1] = seen[1]._replace(channels=seen[1].channels._replace(greatest=greatest))
    made = equalise(atoms, seen)
    largest = reference.values(atoms.network, x)[1].max()
    number = atoms.network.steps[0].weights["pointwise_kernel"]
    after = made.network.steps[0].weights["pointwise_kernel"]
    ratio = atoms.network.tensors[number][..., 2] / made.network.tensors[after][..., 2]
    assert 6 * ratio.max() > 0.19 * largest


def test_what_does_not_scale_is_left():
    drawn = Drawn()
    y = drawn.ordinary(drawn.unary(drawn.ordinary(0, 6, activation="none"), "tanh"), 6)
    z = drawn.unary(drawn.reduce(y, "max", [1], True), "square")
    _, _, made = equalised(drawn.network(y, drawn.ordinary(z, 6)))
    assert made is None


def test_dead_channels_are_left():
    drawn = Drawn()
    y = drawn.ordinary(drawn.ordinary(0, 8), 6)
    drawn.tensors[0][..., 2] = 0
    drawn.tensors[1][2] = -1
    network = drawn.network(y)
    _, x, made = equalised(network)
    assert all(np.isfinite(tensor).all() for tensor in made.network.tensors)
    np.testing.assert_allclose(
        reference.run(made.network, x)[0], reference.run(network, x)[0], rtol=1e-4, atol=1e-5
    )
