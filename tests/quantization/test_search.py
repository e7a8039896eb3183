"""The int8 network that is chosen: what is kept float, how it was made, and its record."""

import math

import numpy as np
import pytest
from helpers.float_networks import Drawn, data, values

from sepconv.program import reference
from sepconv.quantization.search import quantized


def classifier(blocks=4):
    drawn = Drawn()
    y = drawn.ordinary(0, 8)
    for _ in range(blocks):
        y = drawn.separable(y, 8, residual=y, activation="none")
    drawn.name = "mean"
    y = drawn.dense(drawn.reduce(y, "mean", [1, 2], False), 5)
    drawn.name = "classes"
    return drawn.network(drawn.softmax(y, 1))


def error(network, made, x):
    logits = network._replace(outputs=[len(network.steps) - 1])
    number = made.steps[-1].inputs[0]
    found, expected = values(made, [x], [number])[number], reference.run(logits, x)[0]
    return math.sqrt(((found - expected) ** 2).mean() / (expected**2).mean())


@pytest.mark.parametrize(("batch", "count"), [(100, 300), (300, 600)])
def test_batches_of_a_fixed_size_stay_whole(batch, count):
    network = classifier(1)
    (entry,) = network.inputs
    x = np.resize(data(network, 32), (count, *entry.shape[1:]))
    fixed = network._replace(inputs=[entry._replace(shape=(batch, *entry.shape[1:]))])
    _, record = quantized(fixed, [x])
    assert record.examples == batch
    assert record.error < 0.1


def test_the_record_says_what_became_of_every_block():
    network = classifier()
    x = data(network, 32)
    made, record = quantized(network, [x])
    assert [block.name for block in record] == [step.name for step in network.steps]
    assert [block.int8 for block in record] == [True] * 7 + [False]
    assert record.floats == {"classes": "softmax has no int8 form"}
    assert sum(block.multiply_adds for block in record) == pytest.approx(1)
    assert sum(block.seconds for block in record) == pytest.approx(1)
    assert record.examples == 16
    assert record.error == pytest.approx(error(network, made.network, x), rel=0.3)
    assert all(20 < block.decibels < 60 for block in record[:-1])
    assert all(block.least < block.greatest for block in record[:-2])
    # The logits are float32, and have no range; nor has the softmax.
    assert all(math.isnan(block.least) for block in record[-2:])
    # The tensors are a quarter of the float ones', but for biases and scales.
    before, after = (sum(t.nbytes for t in net.tensors) for net in (network, made.network))
    assert after < before / 2


def test_blocks_are_kept_by_name_and_by_pattern():
    network = classifier()
    x = data(network, 8)
    _, record = quantized(network, [x], keep=["dense*", "separable 2"])
    assert [block.name for block in record if block.why == "as asked for"] == [
        "separable 2",
        "dense 6",
    ]
    with pytest.raises(ValueError, match=r"'separable 9', which fits none; like it are \['sep"):
        quantized(network, [x], keep=["separable 9"])


def test_a_tolerance_keeps_the_noisiest_blocks_float():
    network = classifier()
    x = data(network, 16)
    _, loose = quantized(network, [x])
    made, kept = quantized(network, [x], tolerance=0.75 * loose.error)
    assert kept.error <= 0.75 * loose.error
    why = "its noise is too large for the tolerance"
    floats = [block.name for block in kept if block.why == why]
    assert 0 < len(floats) < 7
    assert error(network, made.network, x) <= 0.75 * loose.error * 1.01
    _, same = quantized(network, [x], tolerance=2 * loose.error)
    assert same.error == loose.error
    assert not [block for block in same if block.why == why]
    # All in float is left where nothing else will do.
    _, none = quantized(network, [x], tolerance=1e-4)
    assert none.error <= 1e-4
    _, exact = quantized(network, [x], tolerance=1e-12)
    assert not any(block.int8 for block in exact)
    assert exact.error == 0


def test_the_best_way_is_taken():
    drawn = Drawn()
    y = drawn.separable(drawn.separable(0, 16, middle="relu"), 16, middle="relu")
    for array in drawn.tensors:
        if array.ndim > 1:  # channels that differ by far
            array *= np.exp(1.5 * drawn.rng.standard_normal(array.shape[-1])).astype("float32")
    network = drawn.network(drawn.reduce(y, "mean", [1, 2], False))
    _, record = quantized(network, [data(network, 32)])
    assert record.equalised or record.corrected
    assert "equalised" in str(record) or "corrected" in str(record)


def test_several_inputs_and_outputs():
    from sepconv.program.network import Input

    drawn = Drawn()
    drawn.inputs.append(Input("z", (None, 10, 9, 8)))
    drawn.shapes.append((None, 10, 9, 8))
    y = drawn.separable(0, 8, residual=1)
    network = drawn.network(y, drawn.reduce(y, "mean", [1, 2], True))
    x = data(network, 8)
    made, record = quantized(network, [x, x[::-1].copy()])
    assert record.error < 0.05
    assert [step.operation for step in made.network.steps].count("quantize") == 2
    found = values(made.network, [x, x[::-1]], made.network.outputs)
    for number, expected in zip(
        made.network.outputs, reference.run(network, x, x[::-1]), strict=True
    ):
        assert np.abs(found[number] - expected).max() < 0.1 * np.abs(expected).max()
