"""Compiling: programs predict what models do, for any batch, and say what they cannot."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.lowering import randomized
from keras import layers

import sepconv
from sepconv.models import compile as compiling
from sepconv.models.lowering import lower
from sepconv.program.file import Contents
from sepconv.program.program import Program


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def small(dtype=None):
    """Two inputs and outputs; convolutions of all kinds, squeeze-and-excite, a residual."""
    image = keras.Input((16, 12, 3), name="image", dtype=dtype)
    more = keras.Input((5,), name="more", dtype=dtype)
    options = {"dtype": dtype} if dtype else {}
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, **options)(image)
    x = layers.BatchNormalization(**options)(x)
    x = start = layers.Activation("silu", **options)(x)
    x = layers.SeparableConv2D(24, 5, padding="same", activation="relu6", **options)(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, **options)(x)
    gate = layers.Conv2D(24, 1, activation="sigmoid", **options)(gate)
    x = layers.Multiply(**options)([x, gate])
    x = layers.Add(**options)([layers.Conv2D(16, 1, **options)(x), start])
    x = layers.GlobalMaxPooling2D(**options)(x)
    x = layers.Concatenate(**options)([x, layers.Dense(3, activation="tanh", **options)(more)])
    classes = layers.Dense(4, activation="softmax", name="classes", **options)(x)
    return randomized(keras.Model([image, more], [classes, x], name="small"))


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def program(model):
    return sepconv.compile(model)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_predictions_are_the_models(model, program, batch):
    inputs = [numbers(batch, 16, 12, 3), numbers(batch, 5, seed=1)]
    expected = model.predict_on_batch(inputs)
    for found, want in zip(program(*inputs), expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    assert [one.name for one in program.inputs] == ["image", "more"]
    assert program.outputs[0].shape == (None, 4)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has float64 only where asked to")
def test_float64():
    model = small("float64")
    program = sepconv.compile(model)
    assert program.dtype == "float64"
    inputs = [numbers(2, 16, 12, 3).astype("float64"), numbers(2, 5).astype("float64")]
    tensors = [keras.ops.convert_to_tensor(x, "float64") for x in inputs]
    for found, want in zip(program(*inputs), model(tensors), strict=True):
        # On PyTorch, Keras' normalization and means of float64 are of float32's precision.
        precise = 1e-5 if keras.backend.backend() == "torch" else 1e-9
        np.testing.assert_allclose(found, keras.ops.convert_to_numpy(want), rtol=precise)


def test_an_optimized_model_compiles_too(model, program):
    again = sepconv.compile(sepconv.optimize(model).model)
    inputs = [numbers(2, 16, 12, 3), numbers(2, 5, seed=1)]
    for a, b in zip(again(*inputs), program(*inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_tuned_programs_have_the_same_bits(model, program, tmp_path):
    tuned = sepconv.compile(model, tune=True, verify=False)
    inputs = [numbers(3, 16, 12, 3), numbers(3, 5, seed=1)]
    tuned.save(tmp_path / "tuned.sepconv")
    loaded = sepconv.load(tmp_path / "tuned.sepconv")
    assert loaded.tuning == tuned.tuning
    for a, b, c in zip(tuned(*inputs), program(*inputs), loaded(*inputs), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_the_model_stays_as_it_is(model):
    before = [w.copy() for w in model.get_weights()]
    program = sepconv.compile(model)
    inputs = [numbers(1, 16, 12, 3), numbers(1, 5, seed=1)]
    expected = program(*inputs)
    model.set_weights([w + 1 for w in before])
    for a, b in zip(program(*inputs), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    model.set_weights(before)


def test_a_program_that_predicts_something_else_is_refused(model, monkeypatch):
    """Zeroing the weights of any one step fails the check."""
    network = lower(model)
    for number, step in enumerate(network.steps):
        if not step.weights:
            continue
        zeroed = {part: len(network.tensors) + i for i, part in enumerate(step.weights)}
        tensors = [
            *network.tensors,
            *(np.zeros_like(network.tensors[i]) for i in step.weights.values()),
        ]
        steps = list(network.steps)
        steps[number] = step._replace(weights=zeroed)
        wrong = network._replace(steps=tuple(steps), tensors=tuple(tensors))
        monkeypatch.setattr(compiling, "lowered", lambda *_, wrong=wrong: Contents(wrong, {}))
        with pytest.raises(ValueError, match="does not predict what the model does"):
            compiling.compile(model)
        assert isinstance(compiling.compile(model, verify=False), Program)


def test_what_is_not_known_is_named():
    class Dream(layers.Layer):
        def call(self, x):
            return x * 2

    model = keras.Sequential([keras.Input((4,)), Dream(name="dream"), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"'dream'.*Dream"):
        sepconv.compile(model)
    with pytest.raises(TypeError, match="Sequential or Functional"):
        sepconv.compile(lambda x: x)


def test_open_sizes(model):
    open_model = randomized(
        keras.Sequential(
            [
                keras.Input((None, None, 3)),
                layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
                layers.SeparableConv2D(20, 3, padding="same", activation="relu"),
                layers.UpSampling2D(2),
            ]
        )
    )
    program = sepconv.compile(open_model)
    assert program.outputs[0].shape == (None, None, None, 20)
    for size in ((8, 9), (31, 16)):
        x = numbers(2, *size, 3)
        want = open_model.predict_on_batch(x)
        np.testing.assert_allclose(program(x), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
