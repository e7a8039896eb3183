"""`Conv2D` computes what Keras' own does, with our kernels where it has a form that we have."""

from __future__ import annotations

import contextlib
import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from sepconv import engines, layers

BACKEND = keras.backend.backend()

#: Arguments of layers that are depthwise convolutions, and shapes of inputs for them.
DEPTHWISE = {
    "eegnet": ({"filters": 8, "kernel_size": (1, 16), "padding": "same"}, (2, 5, 20, 1)),
    "one channel": (
        {"filters": 5, "kernel_size": 3, "strides": 2, "activation": "relu"},
        (2, 9, 8, 1),
    ),
    "groups": ({"filters": 4, "kernel_size": 3, "groups": 4, "padding": "same"}, (2, 7, 6, 4)),
    "multiplier": (
        {"filters": 12, "kernel_size": (3, 2), "groups": 4, "activation": "elu"},
        (2, 7, 6, 4),
    ),
    "dilation": ({"filters": 6, "kernel_size": 3, "groups": 3, "dilation_rate": 2}, (2, 7, 8, 3)),
    "strides": (
        {
            "filters": 6,
            "kernel_size": 3,
            "groups": 3,
            "strides": (2, 1),
            "padding": "same",
            "use_bias": False,
        },
        (2, 7, 8, 3),
    ),
    "first": (
        {"filters": 6, "kernel_size": 3, "groups": 3, "data_format": "channels_first"},
        (2, 3, 7, 9),
    ),
}

#: Of layers that are 1x1 convolutions, which are ours on JAX and PyTorch.
POINTWISE = {
    "plain": ({"filters": 9, "kernel_size": 1}, (2, 5, 6, 8)),
    "strides": (
        {"filters": 16, "kernel_size": 1, "strides": (2, 3), "activation": "relu"},
        (2, 5, 7, 12),
    ),
    "same": (
        {"filters": 8, "kernel_size": 1, "strides": 2, "padding": "same", "use_bias": False},
        (2, 5, 8, 8),
    ),
    "first": ({"filters": 9, "kernel_size": 1, "data_format": "channels_first"}, (2, 8, 5, 6)),
}

#: Of layers that are Keras' to compute.
STOCK = {
    "dense": ({"filters": 6, "kernel_size": 3, "padding": "same"}, (2, 7, 6, 3)),
    "many filters": ({"filters": 17, "kernel_size": 3}, (2, 7, 6, 1)),
    "few channels": ({"filters": 32, "kernel_size": 1}, (2, 7, 6, 3)),
    "groups": ({"filters": 8, "kernel_size": 3, "groups": 2}, (2, 7, 6, 4)),
}


@pytest.fixture
def calls(monkeypatch):
    """A list that the names of our functions are added to as layers call them."""
    made = []
    engine = engines.adapter(BACKEND)

    def noting(name, original):
        def function(*args, **kwargs):
            made.append(name)
            return original(*args, **kwargs)

        return function

    for attribute, name in (("convolve", "depthwise_conv2d"), ("pointwise", "pointwise")):
        if getattr(engine, attribute) is not None:
            monkeypatch.setattr(engine, attribute, noting(name, getattr(engine, attribute)))
    return made


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def pair(arguments, shape):
    """Our layer and Keras' own, of the same weights."""
    pair = [
        kit.Conv2D(bias_initializer="random_normal", **arguments) for kit in (layers, keras.layers)
    ]
    for layer in pair:
        layer.build(shape)
    pair[1].set_weights(pair[0].get_weights())
    return pair


def assert_near(actual, expected, tolerance=1e-5):
    actual, expected = (np.asarray(ops.convert_to_numpy(a), "float64") for a in (actual, expected))
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("case", DEPTHWISE)
def test_values_and_gradients_are_keras_own(case, gradients, calls):
    arguments, shape = DEPTHWISE[case]
    ours, stock = pair(arguments, shape)
    x, dy = numbers(*shape), numbers(*stock.compute_output_shape(shape), seed=1)
    results, expected = gradients([ours, stock], x, dy)
    assert calls == ["depthwise_conv2d"]
    assert len(results) == 2 + len(ours.weights)
    for result, value in zip(results, expected, strict=True):
        assert_near(result, value)


@pytest.mark.parametrize("case", POINTWISE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_1x1_values_and_gradients_are_keras_own(case, dtype, gradients, float64, calls):
    arguments, shape = POINTWISE[case]
    if BACKEND == "tensorflow" and case == "first":
        pytest.skip("TensorFlow has no such convolution on a CPU")
    with float64() if dtype == "float64" else contextlib.nullcontext():
        ours, stock = pair({**arguments, "dtype": dtype}, shape)
        x, dy = numbers(*shape), numbers(*stock.compute_output_shape(shape), seed=1)
        results, expected = gradients([ours, stock], x.astype(dtype), dy.astype(dtype))
    ours_to_compute = BACKEND == "jax" or (BACKEND == "torch" and case != "first")
    assert calls == ["pointwise"] * ours_to_compute
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == value.dtype == dtype
        assert_near(result, value, 1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("case", STOCK)
def test_what_is_not_ours_is_computed_by_keras(case, forward, calls):
    arguments, shape = STOCK[case]
    ours, stock = pair(arguments, shape)
    x = numbers(*shape)
    np.testing.assert_array_equal(forward(ours, x), forward(stock, x))
    assert not calls


class Widened(keras.layers.Layer):
    """A layer, of whatever policy, whose output is float32."""

    def __init__(self, layer):
        super().__init__(dtype="float32")
        self.layer = layer

    def build(self, shape):
        self.layer.build(shape)

    def call(self, inputs):
        return ops.cast(self.layer(inputs), "float32")


def rounded(a, dtype):
    return np.array(ops.convert_to_numpy(ops.cast(ops.cast(a, dtype), "float32")))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_1x1_values_and_gradients_in_half_types(policy, gradients, calls):
    shape, arguments = (2, 5, 6, 16), {"filters": 24, "kernel_size": 1, "use_bias": False}
    half = layers.Conv2D(dtype=policy, **arguments)
    wide = keras.layers.Conv2D(**arguments)
    dtype = half.compute_dtype
    wrapped = Widened(half)
    for layer in (wrapped, wide):
        layer.build(shape)
    weights = [rounded(w, dtype) for w in half.get_weights()]
    half.set_weights(weights)
    wide.set_weights(weights)
    x, dy = rounded(numbers(*shape), dtype), rounded(numbers(2, 5, 6, 24, seed=1), dtype)
    assert keras.backend.standardize_dtype(half(x).dtype) == dtype
    calls.clear()
    results, expected = gradients([wrapped, wide], x, dy)
    assert calls == ["pointwise"] * (BACKEND in ("jax", "torch"))
    unit = 2**-9 if dtype == "bfloat16" else 2**-12  # half a last place, of results near a power
    if not calls:  # TensorFlow's own sums are float16's
        unit *= 8
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == "float32"
        assert_near(result, value, unit)


def test_it_is_keras_own_in_all_but_the_computation():
    ours, stock = (inspect.signature(kit.Conv2D) for kit in (layers, keras.layers))
    assert list(ours.parameters) == list(stock.parameters)
    for parameter in stock.parameters.values():
        assert ours.parameters[parameter.name].default == parameter.default
    arguments = {
        "filters": 8,
        "kernel_size": (2, 3),
        "strides": (3, 2),
        "padding": "same",
        "data_format": "channels_first",
        "groups": 4,
        "activation": "gelu",
        "use_bias": False,
        "kernel_initializer": keras.initializers.HeNormal(seed=3),
        "kernel_regularizer": keras.regularizers.L1(0.02),
        "bias_constraint": "non_neg",
        "name": "a_name",
        "dtype": "mixed_bfloat16",
    }
    layer, twin = layers.Conv2D(**arguments), keras.layers.Conv2D(**arguments)
    assert layer.get_config() == twin.get_config()
    again = keras.layers.deserialize(json.loads(json.dumps(keras.layers.serialize(layer))))
    assert type(again) is layers.Conv2D
    assert again.get_config() == layer.get_config()
    y = layer(numbers(2, 4, 9, 9))
    assert tuple(y.shape) == layer.compute_output_shape((2, 4, 9, 9)) == (2, 8, 3, 5)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert [w.dtype for w in layer.weights] == ["float32"]
    assert float(ops.convert_to_numpy(sum(layer.losses))) > 0


def test_inputs_are_cast_also_under_stateless_call(calls):
    layer, x = layers.Conv2D(6, 3, groups=3), numbers(2, 6, 6, 3)
    expected = layer(x)
    weights = [v.value for v in layer.trainable_variables]
    for given in ("float16", "float32"):
        y, _ = layer.stateless_call(weights, [], ops.cast(ops.convert_to_tensor(x), given))
        assert keras.backend.standardize_dtype(y.dtype) == "float32"
        assert_near(y, expected, 1e-3)
    assert len(calls) == 3


def test_unknown_sizes():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(6, 3, groups=3, strides=2)(inputs))
    assert model.output_shape == (None, None, None, 6)
    for size in (7, 10):
        assert model.predict(numbers(2, size, size, 3), verbose=0).shape == (
            2,
            *[size // 2 - (size % 2 == 0)] * 2,
            6,
        )


def test_lora_adapts_what_we_compute(calls):
    layer, x = layers.Conv2D(6, 3, groups=3), numbers(2, 6, 6, 3)
    before = layer(x)
    layer.enable_lora(2)
    assert_near(layer(x), before)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape, "float32"))
    assert np.abs(ops.convert_to_numpy(layer(x)) - ops.convert_to_numpy(before)).max() > 1e-3
    assert len(calls) == 3


def network(kit):
    return keras.Sequential(
        [
            keras.Input((10, 10, 1)),
            kit.Conv2D(4, 3, padding="same", use_bias=False, name="temporal"),
            keras.layers.BatchNormalization(),
            kit.Conv2D(8, (5, 1), groups=4, activation="relu", name="grouped"),
            keras.layers.Conv2D(3, 3, name="dense"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )


def test_a_network_trains_as_stock_does(trains):
    curves, models = [], [network(kit) for kit in (layers, keras.layers)]
    models[1].set_weights(models[0].get_weights())
    for model in models:
        model.compile(keras.optimizers.SGD(0.05), "mse")
        x, y = numbers(8, 10, 10, 1), numbers(8, 3, seed=1)
        curves.append([float(model.train_on_batch(x, y)) for _ in range(4)])
    assert curves[0][-1] < curves[0][0]
    np.testing.assert_allclose(curves[0], curves[-1], rtol=1e-4)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_files_go_both_ways(suffix, tmp_path):
    stock, x = network(keras.layers), numbers(2, 10, 10, 1)
    stock.set_weights(
        [np.abs(numbers(*w.shape, seed=i)) for i, w in enumerate(stock.get_weights())]
    )
    stock.save(tmp_path / f"stock.{suffix}")
    ours = layers.load_model(tmp_path / f"stock.{suffix}")
    kinds = {layer.name: type(layer) for layer in ours.layers}
    assert kinds["temporal"] is kinds["grouped"] is layers.Conv2D
    assert kinds["dense"] is keras.layers.Conv2D
    ours.save(tmp_path / f"ours.{suffix}")
    again = keras.models.load_model(tmp_path / f"ours.{suffix}")
    assert type(again.get_layer("grouped")) is layers.Conv2D
    back = keras.models.load_model(
        tmp_path / f"ours.{suffix}", custom_objects=layers.stock_objects()
    )
    assert type(back.get_layer("grouped")) is keras.layers.Conv2D
    expected = stock.predict(x, verbose=0)
    for model in (ours, again, back):
        assert_near(model.predict(x, verbose=0), expected)
