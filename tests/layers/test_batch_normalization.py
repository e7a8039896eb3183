"""`BatchNormalization` trains as Keras' own does, by our kernels where they serve it."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from keras import layers as stock
from keras import ops

import sepconv
from sepconv import engines, layers

BACKEND = keras.backend.backend()
TRAINS = engines.adapter(BACKEND).batch_norm is not None

CASES = {
    "images": ({}, (4, 5, 6, 7)),
    "first": ({"axis": 1, "epsilon": 1e-5}, (4, 3, 6, 5)),
    "dense": ({"momentum": 0.5}, (16, 70)),
    "signal": ({"center": False}, (3, 8, 20)),
    "no scale": ({"scale": False, "axis": -2}, (4, 3, 6, 5)),
    "neither": ({"scale": False, "center": False}, (4, 3, 3, 5)),
}


def inputs(shape, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 2 + 3).astype("float32")


def randomized(layer, shape):
    """The layer, built, with weights of which none is what it is at first."""
    layer.build((None, *shape[1:]))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.random(w.shape) + 0.5 for w in layer.weights])
    return layer


@pytest.fixture
def calls(monkeypatch):
    """A list that grows whenever our kernels are asked."""
    made = []
    engine = engines.adapter(BACKEND)
    original = engine.batch_norm

    def noting(*args, **kwargs):
        made.append(kwargs)
        return original(*args, **kwargs)

    if original is not None:
        monkeypatch.setattr(engine, "batch_norm", noting)
    return made


@pytest.fixture
def engine_dtypes(monkeypatch):
    """The dtypes of what our kernels are given."""
    dtypes = []
    engine = engines.adapter(BACKEND)
    original = engine.batch_norm

    def noting(x, *args, **kwargs):
        dtypes.append(keras.backend.standardize_dtype(x.dtype))
        return original(x, *args, **kwargs)

    if original is not None:
        monkeypatch.setattr(engine, "batch_norm", noting)
    return dtypes


def step(layer, x):
    """What one training step makes of a layer's weights, and its prediction after that."""
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), stock.Dense(x.shape[-1], kernel_initializer="identity"), layer]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.train_on_batch(x, inputs(x.shape, 2))
    return [*model.get_weights(), model.predict(x, verbose=0)]


@pytest.mark.skipif(not TRAINS, reason="NumPy does not train")
@pytest.mark.parametrize("case", CASES)
def test_training_is_that_of_keras(case, calls):
    options, shape = CASES[case]
    x = inputs(shape)
    ours = step(randomized(layers.BatchNormalization(**options), shape), x)
    assert calls
    theirs = step(randomized(stock.BatchNormalization(**options), shape), x)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_calls_are_those_of_keras(case):
    options, shape = CASES[case]
    ours = randomized(layers.BatchNormalization(**options), shape)
    theirs = randomized(stock.BatchNormalization(**options), shape)
    x = inputs(shape)
    for training in (True, False, None):
        a, b = (ops.convert_to_numpy(f(x, training=training)) for f in (ours, theirs))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(
            "float64", marks=pytest.mark.skipif(BACKEND == "jax", reason="JAX has 32 bits here")
        ),
        "mixed_bfloat16",
        "mixed_float16",
        "bfloat16",
    ],
)
def test_dtypes(dtype, calls):
    shape = (4, 5, 6, 7)
    pair = [randomized(kind.BatchNormalization(dtype=dtype), shape) for kind in (layers, stock)]
    results = []
    for layer in pair:
        y = layer(ops.cast(inputs(shape), layer.compute_dtype), training=True)
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
        arrays = [y, *layer.weights]
        results.append([ops.convert_to_numpy(ops.cast(a, "float32")) for a in arrays])
    near = 1e-5 if dtype == "float64" else 1e-2
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=near, atol=near)
    assert bool(calls) == TRAINS


class Widened(stock.Layer):
    """A layer, of whatever policy, whose output is float32."""

    def __init__(self, layer):
        super().__init__(dtype="float32")
        self.layer = layer

    def build(self, shape):
        if not self.layer.built:
            self.layer.build(shape)

    def call(self, inputs, training=None):
        return ops.cast(self.layer(inputs, training=training), "float32")


@pytest.mark.skipif(not TRAINS, reason="NumPy does not train")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("case", CASES)
def test_training_in_half_types_is_that_of_keras(case, policy, engine_dtypes):
    options, shape = CASES[case]
    x = inputs(shape)
    unit = 2**-8 if policy == "mixed_bfloat16" else 2**-11
    results = []
    for kind in (layers, stock):
        layer = randomized(kind.BatchNormalization(dtype=policy, **options), shape)
        results.append(step(Widened(layer), x))
    assert set(engine_dtypes) == {policy.removeprefix("mixed_")}  # no cast before our kernels
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype == "float32"
        np.testing.assert_allclose(a, b, rtol=2 * unit, atol=2 * unit)


def test_a_half_type_that_is_not_the_layers_is_normalized_in_float32(engine_dtypes):
    shape = (4, 5, 6, 7)
    layer = randomized(layers.BatchNormalization(autocast=False), shape)
    y = layer(ops.cast(inputs(shape), "bfloat16"), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    assert engine_dtypes == ["float32"] * TRAINS


def test_what_is_keras_own(calls):
    shape = (4, 5, 7)
    x = inputs(shape)
    frozen = randomized(layers.BatchNormalization(trainable=False), shape)
    before = frozen.get_weights()
    frozen(x, training=True)
    for a, b in zip(before, frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for dtype in ("mixed_bfloat16", "float32"):
        layer = randomized(layers.BatchNormalization(dtype=dtype), shape)
        layer(x)
    layer(x, training=True, mask=np.ones((4, 5), bool))
    if "renorm" in inspect.signature(stock.BatchNormalization).parameters:
        randomized(layers.BatchNormalization(renorm=True), shape)(x, training=True)
    assert not calls


def test_files_and_copies(tmp_path):
    model = keras.Sequential(
        [keras.Input((6, 5, 4)), stock.DepthwiseConv2D(3), stock.BatchNormalization(axis=-1)]
    )
    fast, record = sepconv.accelerate(model)
    assert type(fast.layers[1]) is (
        layers.BatchNormalization if TRAINS else stock.BatchNormalization
    )
    assert record.changed == (2 if TRAINS else 1)
    fast.save(tmp_path / "fast.keras")
    model.save(tmp_path / "stock.keras")
    x = inputs((2, 6, 5, 4))
    expected = model.predict(x, verbose=0)
    for loaded in (
        keras.models.load_model(tmp_path / "fast.keras"),
        layers.load_model(tmp_path / "stock.keras"),
        sepconv.to_stock(fast),
    ):
        np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
    assert type(layers.load_model(tmp_path / "stock.keras").layers[1]) is layers.BatchNormalization
    assert type(sepconv.to_stock(fast).layers[1]) is stock.BatchNormalization
    config = layers.BatchNormalization(momentum=0.9, scale=False).get_config()
    assert layers.BatchNormalization.from_config(config).get_config() == config


def test_a_patch_lets_keras_own_layers_train_by_our_kernels(calls):
    shape = (4, 5, 6, 7)
    layer = randomized(stock.BatchNormalization(), shape)
    original = stock.BatchNormalization.call
    with sepconv.patch_keras():
        y = layer(inputs(shape), training=True)
        assert bool(calls) == TRAINS
        assert inspect.signature(stock.BatchNormalization.call) == inspect.signature(original)
    assert stock.BatchNormalization.call is original
    other = randomized(stock.BatchNormalization(), shape)
    expected = other(inputs(shape), training=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(y), ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-5
    )
    for a, b in zip(layer.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_optimize_folds_ours_too():
    model = keras.Sequential(
        [keras.Input((6, 5, 4)), layers.DepthwiseConv2D(3), layers.BatchNormalization()]
    )
    x = inputs((2, 6, 5, 4))
    fused, _ = sepconv.optimize(model)
    assert not any(isinstance(layer, stock.BatchNormalization) for layer in fused.layers)
    np.testing.assert_allclose(
        fused.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )
