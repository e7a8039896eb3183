"""`sepconv.quantize(..., trainable=True)`: what trains, is frozen, saved, loaded and refused."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

import sepconv
from sepconv.layers import ProgramLayer, TrainableInt8
from sepconv.program import file
from sepconv.program.building.refusal import NotLowered

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def digits():
    """Images of handwritten digits, of 8 by 8 pixels, and their classes."""
    loaded = pytest.importorskip("sklearn.datasets").load_digits()
    return (loaded.images[:, ..., None] / 16).astype("float32"), loaded.target


@pytest.fixture(scope="module")
def model():
    """A small separable network, trained for a moment."""
    keras.utils.set_random_seed(0)
    network = [
        layers.Conv2D(12, 3, use_bias=False, name="stem"),
        layers.BatchNormalization(momentum=0.5, name="norm"),
        layers.ReLU(6.0, name="clamp"),
        layers.SeparableConv2D(16, 3, padding="same", activation="silu", name="block"),
        layers.Dropout(0.1),
        layers.GlobalAveragePooling2D(name="mean"),
        layers.Dense(10, name="classes"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1), name="picture"), *network], name="small")
    model.compile(keras.optimizers.Adam(1e-2), LOSS)
    images, classes = digits()
    model.fit(images[:512], classes[:512], batch_size=64, epochs=3, verbose=0)
    return model


@pytest.fixture(scope="module")
def plain(model):
    return sepconv.quantize(model, digits()[0][:64])


@pytest.fixture(scope="module")
def trained(model):
    """The model before and after training, with its losses."""
    images, classes = digits()
    made = sepconv.quantize(model, images[:64], trainable=True).model
    before = made.predict(images[1024:], verbose=0)
    made.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
    history = made.fit(images[:512], classes[:512], batch_size=64, epochs=4, verbose=0).history
    return made, before, history["loss"]


def accuracy(model):
    images, classes = digits()
    return float((model.predict(images[1024:], verbose=0).argmax(1) == classes[1024:]).mean())


def test_it_begins_as_the_int8_model(model, plain, trained):
    made, before, _ = trained
    np.testing.assert_array_equal(before, plain.model.predict(digits()[0][1024:], verbose=0))
    assert made.name == plain.model.name
    assert [x.name for x in made.inputs] == ["picture"]
    (layer,) = made.layers[1:]
    assert isinstance(layer, TrainableInt8)
    # Normalization is folded: kernels and biases are all that trains.
    assert [tuple(w.shape) for w in layer.trainable_weights] == [
        *((3, 3, 1, 12), (12,), (3, 3, 12, 1), (12,), (1, 1, 12, 16), (16,)),
        *((16, 10), (10,)),
    ]


def test_training_helps_and_is_frozen(plain, trained):
    made, _, losses = trained
    assert losses[-1] < losses[0]
    frozen, record = sepconv.quantize(made)
    assert isinstance(frozen.layers[-1], ProgramLayer)
    assert accuracy(frozen) >= accuracy(plain.model)
    images = digits()[0][1024:]
    found, expected = (each.predict(images, verbose=0) for each in (frozen, made))
    network = file.decode(frozen.layers[-1].program_file).network
    assert network.steps[-1].operation == "dequantized_dense"
    # Values before the last that lie between two numbers may be rounded either way.
    apart = np.abs(found - expected) / (np.ptp(expected) / 255)
    assert apart.max() < 1.01
    assert (apart < 0.01).mean() > 0.99
    # All scales of values are those of the model that was not trained.
    old = file.decode(plain.model.layers[-1].program_file).network
    assert [step.attributes for step in network.steps] == [step.attributes for step in old.steps]
    assert any((a != b).any() for a, b in zip(network.tensors, old.tensors, strict=True))
    assert record.trained
    assert np.isnan(record.error)
    assert "trained since" in str(record)
    assert [block.name for block in record] == [block.name for block in plain.record]
    # It was compiled, and is.
    assert frozen.evaluate(images, digits()[1][1024:], verbose=0)[1] == pytest.approx(
        accuracy(frozen)
    )


def test_both_are_saved_and_loaded(trained, tmp_path):
    made = trained[0]
    images, classes = digits()
    expected = made.predict(images[:32], verbose=0)
    made.save(tmp_path / "trained.keras")
    again = keras.models.load_model(tmp_path / "trained.keras")
    np.testing.assert_array_equal(again.predict(images[:32], verbose=0), expected)
    frozen = sepconv.quantize(again).model
    wanted = sepconv.quantize(made).model.predict(images[:32], verbose=0)
    np.testing.assert_array_equal(frozen.predict(images[:32], verbose=0), wanted)
    frozen.save(tmp_path / "frozen.keras")
    loaded = keras.models.load_model(tmp_path / "frozen.keras")
    np.testing.assert_array_equal(loaded.predict(images[:32], verbose=0), wanted)
    np.testing.assert_array_equal(sepconv.compile(loaded)(images[:32]), wanted)
    # The loaded one goes on training where the other stopped.
    again.fit(images[:64], classes[:64], verbose=0)
    assert np.abs(again.predict(images[:32], verbose=0) - expected).max() > 0


def test_a_layer_within_a_model_is_frozen(trained):
    layer = trained[0].layers[-1]
    inputs = keras.Input((8, 8, 1))
    around = keras.Model(inputs, layers.Softmax()(layer(inputs)))
    frozen = sepconv.quantize(around).model
    assert [type(each).__name__ for each in frozen.layers] == [
        *("InputLayer", "ProgramLayer", "Softmax")
    ]
    images = digits()[0][:32]
    found, expected = (each.predict(images, verbose=0) for each in (frozen, around))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_it_is_frozen_before_it_is_compiled(trained):
    with pytest.raises(NotLowered, match=r"TrainableInt8 .* freeze the model first"):
        sepconv.compile(trained[0])


def test_several_inputs_and_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    y = layers.Concatenate()([layers.Dense(8, "relu")(a), layers.Dense(8, "gelu")(b)])
    model = keras.Model([a, b], [layers.Dense(3)(y), layers.Dense(2, "softmax")(y)])
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((32, 6)).astype("float32") for _ in "ab"]
    simulated = sepconv.quantize(model, x, trainable=True).model
    expected = sepconv.quantize(model, x).model.predict(x, verbose=0)
    for y, wanted in zip(simulated.predict(x, verbose=0), expected, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="takes 2 inputs"):
        simulated.layers[-1](x[0])


# ---- float models


def test_to_stock_has_the_rounded_weights(plain, tmp_path):
    stock = sepconv.to_stock(plain.model)
    kinds = [type(layer) for layer in stock.layers]
    assert all(kind is getattr(keras.layers, kind.__name__) for kind in kinds)
    assert [kind.__name__ for kind in kinds] == [
        *("InputLayer", "Conv2D", "DepthwiseConv2D", "Conv2D", "Activation"),
        *("GlobalAveragePooling2D", "Dense"),
    ]
    assert stock.get_layer("classes").activation is keras.activations.linear
    # Each weight is exactly a whole number times its channel's scale.
    kernel = stock.get_layer("classes").get_weights()[0]
    file_of = file.decode(plain.model.layers[-1].program_file)
    (step,) = (step for step in file_of.network.steps if step.operation == "dequantized_dense")
    numbers = file_of.network.tensors[step.weights["kernel"]].astype("float32")
    scale = (
        np.float32(kernel[np.abs(numbers).argmax(0), range(10)])
        / numbers[np.abs(numbers).argmax(0), range(10)]
    )
    np.testing.assert_allclose(kernel, numbers * scale, rtol=1e-6)
    images = digits()[0][:64]  # others may be clamped at the ends of these ones' ranges
    found, expected = (each.predict(images, verbose=0) for each in (stock, plain.model))
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    assert np.abs(found - expected).max() > 0
    stock.save(tmp_path / "stock.keras")
    text = file_config(tmp_path / "stock.keras")
    assert "sepconv" not in text


def file_config(path):
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return archive.read("config.json").decode()


def test_to_stock_of_a_trained_model_is_that_of_the_frozen_one(trained):
    images = digits()[0][:16]
    one, other = (
        sepconv.to_stock(each).predict(images, verbose=0)
        for each in (trained[0], sepconv.quantize(trained[0]).model)
    )
    np.testing.assert_array_equal(one, other)


def test_to_stock_refuses_what_has_no_origin(model, plain):
    program = sepconv.compile(model)
    x = keras.Input((8, 8, 1))
    served = keras.Model(x, ProgramLayer(program, name="served")(x))
    with pytest.raises(ValueError, match=r"'served' is not an int8 network of sepconv\.quantize"):
        sepconv.to_stock(served)
    around = keras.Model(x, layers.Softmax()(plain.model.layers[-1](x)))
    with pytest.raises(ValueError, match="no counterpart in Keras, but where it is all of a model"):
        sepconv.to_stock(around)


# ---- what is refused


@pytest.mark.parametrize(
    "extra", [{"calibration": np.ones((4, 8, 8, 1))}, {"keep": ["stem"]}, {"trainable": True}]
)
def test_a_trained_model_is_frozen_as_it_is(trained, extra):
    with pytest.raises(ValueError, match=rf"takes the model alone. Received: {next(iter(extra))}="):
        sepconv.quantize(trained[0], **extra)


def test_weights_that_are_no_numbers_are_not_frozen(model):
    made = sepconv.quantize(model, digits()[0][:16], trainable=True).model
    weight = made.trainable_variables[-1]
    weight.assign(np.full(weight.shape, np.nan))
    with pytest.raises(ValueError, match="block 'classes' must be finite"):
        sepconv.quantize(made)


def test_only_keras_models_are_trained(model):
    with pytest.raises(TypeError, match="Received: a program"):
        sepconv.quantize(sepconv.compile(model), digits()[0][:16], trainable=True)
    with pytest.raises(TypeError, match="quantize needs calibration"):
        sepconv.quantize(model)
    with pytest.raises(TypeError, match="quantize needs calibration"):
        sepconv.quantize(sepconv.compile(model))


def test_damaged_configs_are_refused(trained):
    config = trained[0].layers[-1].get_config()
    assert TrainableInt8.from_config(config).get_config() == config
    assert "NaN" not in json.dumps(config)
    with pytest.raises(ValueError, match="its network is damaged"):
        TrainableInt8(**{**config, "network": "{}"})
    with pytest.raises(ValueError, match="the note 'quantization' beside the network"):
        TrainableInt8(**{**config, "origin": "[]"})
    network = json.loads(config["network"])
    network["steps"][1]["inputs"] = [99]
    with pytest.raises(ValueError, match="its network is damaged"):
        TrainableInt8(**{**config, "network": json.dumps(network)})


def test_exports_say_what_to_export_instead(trained, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow writes SavedModels of models")
    with pytest.raises(ValueError, match=r"sepconv\.to_stock\(model\)"):
        trained[0].export(tmp_path / "model", verbose=False)
