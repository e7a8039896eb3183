"""The networks of the benchmarks compute the same with sepconv as with Keras' own layers."""

import importlib

import keras
import numpy as np
import pytest
from helpers import scripts
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


@pytest.fixture
def training_step():
    with scripts.importable(scripts.BENCHMARKS):
        yield importlib.import_module("training_step")


def test_steps_in_bfloat16_are_measured_beside_float32(training_step):
    def build():
        return mobilenet(32, classes=7, alpha=0.25, dropout=0.0)

    ways = training_step.ways("bfloat16")
    told = ["stock-float32", "sepconv-float32", "stock-bfloat16", "sepconv-bfloat16"]
    assert list(map(str, ways)) == told
    weights = build().get_weights()
    models = {way: training_step.network(way, build, weights) for way in ways}
    for way, model in models.items():
        assert {layer.compute_dtype for layer in model.layers} == {way.dtype}
        assert {w.dtype for w in model.trainable_variables} == {"float32"}
        ours = any(isinstance(layer, layers.DepthwiseConv2D) for layer in model.layers)
        assert ours == (way.layers == "sepconv")
    assert keras.config.dtype_policy().name == "float32"
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3), "float32")
    apart = training_step.differences(models, x)
    assert training_step.wrong(apart) == []
    assert apart[ways[1]] < 1e-4 < apart[ways[3]]
    assert training_step.wrong(apart | {ways[1]: 2e-4, ways[3]: float("nan")}) == ways[1::2]


def test_the_row_of_bfloat16_has_both_dtypes(training_step):
    times = {
        way: [0.001 * ms] * 3
        for way, ms in zip(training_step.ways("bfloat16"), (40, 30, 36, 20), strict=True)
    }
    memory = dict.fromkeys(times, 100.0)
    head, _, cells = training_step.row("jax", "eegnet", times, memory).splitlines()
    assert head.count("|") == cells.count("|")
    assert "sepconv bfloat16, ms | over the best stock | over float32 | stock float32, MB" in head
    assert "| 20.0 (20.0 to 20.0) | 1.8x | 1.50x | 100 |" in cells
    two = {way: times[way] for way in training_step.ways("float32")}
    head, _, cells = training_step.row("jax", "eegnet", two, {}).splitlines()
    assert head == "| engine | network | stock, ms | sepconv, ms | speed-up |"
    assert cells.endswith("| 1.3x |")


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
