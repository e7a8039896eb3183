"""Models with our layers train as the same models with Keras' own do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.keras_versions import convolves_channels_first

from sepconv import layers


@pytest.fixture(autouse=True)
def needs_training(trains):
    pass


def network(kit, data_format="channels_last", **options):
    """A small classifier; `options` go to each of its convolutions."""
    options["data_format"] = data_format
    axis = 1 if data_format == "channels_first" else -1
    return keras.Sequential(
        [
            keras.Input((2, 12, 12) if axis == 1 else (12, 12, 2)),
            kit.SeparableConv2D(8, 3, padding="same", activation="relu", **options),
            keras.layers.BatchNormalization(axis=axis),
            kit.DepthwiseConv2D(3, strides=2, depth_multiplier=2, activation="relu6", **options),
            kit.SeparableConv2D(8, 3, use_bias=False, activation="tanh", **options),
            keras.layers.GlobalAveragePooling2D(data_format=data_format),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def sequence_network(kit):
    return keras.Sequential(
        [
            keras.Input((20, 3)),
            kit.SeparableConv1D(8, 5, strides=2, padding="same", activation="relu"),
            kit.DepthwiseConv1D(3, depth_multiplier=2, dilation_rate=2),
            keras.layers.GlobalMaxPooling1D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def data(shape, count=50):
    """Three classes of noise, each around its own mean."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, count)
    noise = rng.standard_normal((count, *shape))
    return (noise + labels.reshape(-1, *[1] * len(shape)) - 1).astype("float32"), labels


def loss_curve(model, x, y, **fit):
    keras.utils.set_random_seed(4)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    return model.fit(x, y, batch_size=16, epochs=4, verbose=0, **fit).history["loss"]


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (network, {}),
        (network, {"data_format": "channels_first"}),
        (network, {"depthwise_regularizer": "l2", "bias_constraint": "non_neg"}),
        (sequence_network, {}),
    ],
)
def test_same_loss_curve_as_stock(build, options):
    if "data_format" in options and not convolves_channels_first():
        pytest.skip("Keras' own layers do not take channels_first here")
    ours, stock = build(layers, **options), build(keras.layers, **options)
    ours.set_weights(stock.get_weights())
    x, y = data(ours.input_shape[1:])
    curves = [loss_curve(model, x, y) for model in (ours, stock)]
    np.testing.assert_allclose(*curves, rtol=1e-3)
    assert curves[0][-1] < curves[0][0]
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_mixed_precision_trains():
    model = network(layers, dtype="mixed_bfloat16")
    x, y = data((12, 12, 2))
    curve = loss_curve(model, x, y)
    assert curve[-1] < curve[0]
    assert model.layers[0].depthwise_kernel.dtype == "float32"


def test_train_on_batch_and_evaluate_agree():
    model = network(layers)
    x, y = data((12, 12, 2), 16)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    model.layers[1].trainable = False  # its batch statistics would differ between the two
    assert float(model.train_on_batch(x, y)) == pytest.approx(
        float(model.evaluate(x, y, verbose=0)), rel=1e-4
    )


def test_frozen_layer_keeps_its_weights():
    model = network(layers)
    model.layers[0].trainable = False
    before = model.layers[0].get_weights()
    loss_curve(model, *data((12, 12, 2)))
    for a, b in zip(before, model.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not model.layers[0].trainable_variables


def test_predict_with_an_odd_last_batch():
    model = network(layers)
    x, _ = data((12, 12, 2), 11)
    whole = model.predict(x, batch_size=11, verbose=0)
    np.testing.assert_allclose(
        model.predict(x, batch_size=4, verbose=0), whole, rtol=1e-5, atol=1e-6
    )


def test_fit_takes_other_float_dtypes():
    model = network(layers)
    x, y = data((12, 12, 2))
    assert np.isfinite(loss_curve(model, x.astype("float64"), y)).all()
    assert np.isfinite(loss_curve(model, x.astype("float16"), y)).all()


def test_run_eagerly_gives_the_same(engine):
    ours, eager = network(layers), network(layers)
    eager.set_weights(ours.get_weights())
    x, y = data((12, 12, 2), 16)
    losses = []
    for model, eagerly in ((ours, False), (eager, True)):
        model.compile(
            keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=eagerly
        )
        losses.append([float(model.train_on_batch(x, y)) for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_images_of_any_size():
    inputs = keras.Input((None, None, 3))
    outputs = layers.SeparableConv2D(4, 3, strides=(2, 1), padding="same")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(outputs))
    model.compile("sgd", "mse")
    for size in ((8, 9), (13, 5)):
        x = np.ones((2, *size, 3), "float32")
        assert np.isfinite(model.train_on_batch(x, np.ones((2, 4), "float32")))
    assert model.predict(np.ones((1, 6, 6, 3), "float32"), verbose=0).shape == (1, 4)


def test_tensorflow_does_not_compile_with_xla(engine):
    model = network(layers)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model.layers[0].supports_jit == (engine != "tensorflow")
    if engine == "tensorflow":
        assert not model.jit_compile


def test_torch_copies_no_layout(engine):
    if engine != "torch":
        pytest.skip("a matter of PyTorch's")
    import torch

    layer = layers.SeparableConv2D(8, 3, padding="same", activation="relu")
    x = torch.rand(2, 8, 8, 4, requires_grad=True)
    layer(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        y = layer(x)
    assert y.is_contiguous()
    seen = {event.key for event in profile.key_averages()}
    copies = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy"}
    assert not seen & copies, seen
