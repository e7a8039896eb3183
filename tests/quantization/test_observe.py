"""What is seen of values, against NumPy on all of the data at once."""

import numpy as np
from helpers import programs

from sepconv.program import reference
from sepconv.program.network import Input, Network, Step
from sepconv.quantization import observe as module
from sepconv.quantization.observe import observe
from sepconv.quantization.scales import channel_axes


def test_batches_change_nothing(monkeypatch):
    network = programs.without_casts(programs.every_operation())
    x = np.random.default_rng(0).standard_normal((7, 8, 8, 3)).astype("float32")
    axes = channel_axes(network)
    whole = observe(network, [x], axes)
    monkeypatch.setattr(module, "_BATCH_BYTES", 1)  # an example at a time
    monkeypatch.setattr(module, "_MOST_OUTPUTS", 3)
    parts = observe(network, [x], axes)
    expected = reference.values(network, x)
    assert len(whole) == len(parts) == len(expected)
    for i, (a, b, value) in enumerate(zip(whole, parts, expected, strict=True)):
        for seen in (a, b):
            np.testing.assert_allclose(seen.histogram.least, value.min(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(seen.histogram.greatest, value.max(), rtol=1e-4, atol=1e-5)
            assert seen.finite
            assert (seen.channels is not None) == (i in axes)
        if network.inputs and i and network.steps[i - 1].operation == "constant":
            continue  # counted once a batch
        assert a.histogram.counts.sum() == np.count_nonzero(value)
        assert b.histogram.counts.sum() == np.count_nonzero(value)
        if a.channels is not None:
            rest = tuple(axis for axis in range(value.ndim) if axis != axes[i])
            np.testing.assert_allclose(b.channels.mean, value.mean(rest), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(b.channels.square, (value**2).mean(rest), rtol=1e-3)
            np.testing.assert_allclose(b.channels.greatest, np.abs(value).max(rest), rtol=1e-3)


def test_numbers_that_are_none_and_bytes_are_told():
    step = Step("unary", "log", [0], {"function": "log", "a": 0.0, "b": 0.0, "c": 0.0})
    network = Network("float32", [Input("x", (None, 3))], [step], [1], ["y"], [])
    x, y = observe(network, [np.float32([[0, 1, 255]])])
    assert x.finite
    assert x.histogram.whole
    assert not y.finite
    assert not observe(network, [np.float32([[1, 2.5, 3]])])[0].histogram.whole
    assert not observe(network, [np.float32([[1, 2, 300]])])[0].histogram.whole


def test_numbers_that_hardly_differ():
    """Fewer float32 numbers are between the extremes than there are bins."""
    step = Step("unary", "s", [0], {"function": "abs", "a": 0.0, "b": 0.0, "c": 0.0})
    network = Network("float32", [Input("x", (None, 3))], [step], [1], ["y"], [])
    one = np.float32(1)
    x = np.array([[one, one, np.nextafter(one, np.float32(2))], [one, 0, one]], np.float32)
    x = np.where(x == 0, np.nextafter(one, np.float32(0)), x)
    seen = observe(network, [x])[1].histogram
    assert (seen.least, seen.greatest) == (float(x.min()), float(x.max()))
    # 1 lies a third of the way: the distance of float32 numbers doubles there.
    places = np.flatnonzero(seen.counts)
    np.testing.assert_allclose(places, [0, len(seen.counts) / 3, len(seen.counts) - 1], atol=1)
    assert seen.counts[places].tolist() == [1, 4, 1]


def test_a_fixed_batch_is_kept():
    step = Step("unary", "s", [0], {"function": "square", "a": 0.0, "b": 0.0, "c": 0.0})
    network = Network("float32", [Input("x", (2, 3))], [step], [1], ["y"], [])
    _, y = observe(network, [np.arange(12, dtype=np.float32).reshape(4, 3)])
    assert y.histogram.greatest == 121
