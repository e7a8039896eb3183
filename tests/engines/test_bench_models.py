"""The networks of the benchmarks compute the same with sepconv as with Keras' own layers."""

import keras
import numpy as np
import pytest
from helpers.selection import keras_backend_is_selected

from sepconv import layers
from sepconv.bench.models import (
    MODELS,
    eegnet,
    mobilenet,
    with_sepconv,
)

if not keras_backend_is_selected():
    pytest.skip("SEPCONV_TEST_ENGINES leaves Keras' backend out", allow_module_level=True)


@pytest.mark.parametrize(
    ("build", "shape", "replaced"),
    [
        (lambda: eegnet(8, 64, dropout=0.0), (8, 64, 1), (2, 1)),
        (
            lambda: mobilenet(32, classes=7, alpha=0.25, dropout=0.0),
            (32, 32, 3),
            (13, 0 if keras.backend.backend() == "tensorflow" else 13),
        ),
    ],
)
def test_outputs_and_a_step_of_training_are_equal(build, shape, replaced):
    keras.utils.set_random_seed(0)
    stock = build()
    # Over a batch this small, batch norm would blow rounding up into large differences.
    for layer in stock.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    ours = with_sepconv(stock)
    kinds = (layers.DepthwiseConv2D, layers.SeparableConv2D), layers.Conv2D
    counts = [sum(isinstance(layer, kind) for layer in ours.layers) for kind in kinds]
    assert tuple(counts) == replaced
    assert not any(isinstance(layer, kinds[0] + kinds[1:]) for layer in stock.layers)

    x = np.random.default_rng(0).standard_normal((4, *shape), "float32")
    y = np.arange(4) % 3
    losses = []
    for model in (stock, ours):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-2), loss)
        losses.append(float(model.train_on_batch(x, y)))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for received, expected in zip(ours.get_weights(), stock.get_weights(), strict=True):
        assert np.linalg.norm(received - expected) <= 1e-4 * max(1, np.linalg.norm(expected))


@pytest.mark.parametrize(("name", "depthwise"), [("xception", 34), ("efficientnetb0", 16)])
def test_larger_networks_are_ours_where_they_can_be(name, depthwise):
    """Their outputs are compared by benchmarks/training_step.py before it times them."""
    if name == "efficientnetb0" and keras.backend.backend() == "jax":
        pytest.skip("JAX takes twenty seconds for its initial weights")
    workload = MODELS[name]
    stock = workload.build()
    assert (stock.input_shape[1:], stock.output_shape[1]) == (workload.shape, workload.classes)
    ours = with_sepconv(stock)
    kinds = layers.DepthwiseConv2D, layers.SeparableConv2D
    assert sum(isinstance(layer, kinds) for layer in ours.layers) == depthwise
    pointwise = sum(isinstance(layer, layers.Conv2D) for layer in ours.layers)
    assert (pointwise == 0) == (keras.backend.backend() == "tensorflow")


def test_workloads_are_what_performance_md_says():
    stock = MODELS["eegnet"].build()
    assert stock.input_shape[1:] == MODELS["eegnet"].shape == (64, 256, 1)
    assert stock.output_shape[1] == MODELS["eegnet"].classes
    assert (MODELS["eegnet"].batch, MODELS["mobilenet"].batch) == (32, 8)
    assert MODELS["mobilenet"].shape == (128, 128, 3)
