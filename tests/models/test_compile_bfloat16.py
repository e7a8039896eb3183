"""Programs of bfloat16: near the float32 model, half as large, the same bits on any threads."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
from helpers.lowering import randomized
from keras import layers

import sepconv
from sepconv.program.dtypes import value_dtypes

#: What the roundings of a few dozen steps make of a prediction, relative to the largest.
ROOM = 8 * 2.0**-7


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def small() -> keras.Model:
    """Convolutions of all kinds, squeeze-and-excite, a residual, pools, and arithmetic."""
    image = keras.Input((16, 12, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.BatchNormalization()(x)
    x = start = layers.Activation("silu")(x)
    x = layers.SeparableConv2D(24, 5, padding="same", activation="relu6")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(24, 1, activation="sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    x = layers.Add()([layers.Conv2D(16, 1)(x), start])
    x = layers.MaxPooling2D(padding="same")(x)
    x = layers.LayerNormalization()(layers.UpSampling2D(interpolation="bilinear")(x))
    x = layers.Concatenate()([x, layers.AveragePooling2D(3, 1, "same")(x)])
    x = layers.GlobalMaxPooling2D()(x)
    classes = layers.Dense(4, activation="softmax", name="classes")(x)
    return randomized(keras.Model(image, classes, name="small"))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small()


@pytest.fixture(scope="module")
def program(model):
    return sepconv.compile(model, dtype="bfloat16")


@pytest.mark.parametrize("batch", [1, 3])
def test_predictions_are_near_the_models(model, program, batch) -> None:
    x = numbers(batch, 16, 12, 3)
    found, expected = program(x), model.predict_on_batch(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=ROOM * np.abs(expected).max())
    assert np.any(found != sepconv.compile(model)(x))


def test_the_same_bits_at_any_number_of_threads(program) -> None:
    x, before = numbers(3, 16, 12, 3), sepconv.num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            sepconv.set_num_threads(threads)
            results += [program(x), program(x)]
    finally:
        sepconv.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_tuned_programs_have_the_same_bits(model, program) -> None:
    x = numbers(2, 16, 12, 3)
    tuned = sepconv.compile(model, dtype="bfloat16", tune=True, verify=False)
    np.testing.assert_array_equal(tuned(x), program(x))


def test_files_are_half_as_large_and_open_alike(tmp_path) -> None:
    kinds = [layers.SeparableConv2D(256, 3, activation="relu"), layers.Conv2D(256, 1)]
    model = keras.Sequential([keras.Input((8, 8, 64)), *kinds, layers.GlobalMaxPooling2D()])
    half = sepconv.compile(model, dtype="bfloat16")
    half.save(tmp_path / "half.sepconv")
    sepconv.compile(model).save(tmp_path / "whole.sepconv")
    sizes = [os.path.getsize(tmp_path / f"{name}.sepconv") for name in ("half", "whole")]
    assert sizes[0] < 0.52 * sizes[1]
    x = numbers(1, 8, 8, 64)
    np.testing.assert_array_equal(sepconv.load(tmp_path / "half.sepconv")(x), half(x))
    assert half.memory().arena < 0.6 * sepconv.compile(model).memory().arena


def test_reports(program) -> None:
    x = numbers(1, 16, 12, 3)
    steps = program.profile(x)
    assert [step.operation for step in steps][:2] == ["cast", "convolution"]
    assert any(step.multiply_adds for step in steps)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_models_of_bfloat16_compile_to_it(policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy(before)
    program = sepconv.compile(model)
    assert "bfloat16" in value_dtypes(program.network)
    assert program.dtype == np.float32
    x = numbers(2, 16, 12, 3)
    expected = np.asarray(keras.ops.convert_to_numpy(model(x))).astype("float32")
    np.testing.assert_allclose(program(x), expected, atol=ROOM * np.abs(expected).max())
    precise = sepconv.compile(model, dtype="float32")
    assert set(value_dtypes(precise.network)) == {"float32"}


def test_layers_of_a_mixed_model_that_compute_in_float32_do() -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            layers.Conv2D(32, 1, dtype="mixed_bfloat16"),
            layers.GlobalAveragePooling2D(dtype="mixed_bfloat16"),
            layers.Dense(8, dtype="mixed_bfloat16", activation="relu"),
            layers.Dense(4, name="precise", dtype="float32"),
        ]
    )
    network = sepconv.compile(model).network
    dtypes = value_dtypes(network)
    kinds = {step.name: dtypes[1 + i] for i, step in enumerate(network.steps)}
    assert kinds["precise"] == "float32"
    assert sorted(set(dtypes)) == ["bfloat16", "float32"]
    (dense,) = (step for step in network.steps if step.name == "precise" and step.weights)
    assert network.tensors[dense.weights["kernel"]].dtype == np.float32


def test_in_part() -> None:
    class Dream(layers.Layer):
        def call(self, x):
            return x * 2

    model = keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            layers.SeparableConv2D(16, 3, activation="relu"),
            Dream(name="dream"),
            layers.Conv2D(8, 1),
        ]
    )
    partial = sepconv.compile(model, dtype="bfloat16", partial=True)
    assert [part.kind for part in partial.parts] == ["program", "keras", "program"]
    x = numbers(2, 8, 8, 16)
    expected = model.predict_on_batch(x)
    found = partial(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=ROOM * np.abs(expected).max())


def test_what_predicts_otherwise_is_refused(model, monkeypatch) -> None:
    from sepconv.models import compile as compiling

    wrong = sepconv.compile(small(), verify=False)
    monkeypatch.setattr(compiling, "as_noted", lambda network, notes: lambda x: 1.2 * wrong(x))
    with pytest.raises(ValueError, match="does not predict what the model does"):
        sepconv.compile(model, dtype="bfloat16")


def test_other_half_types_are_refused(model) -> None:
    with pytest.raises(ValueError, match="dtype must be 'float32', 'float64', 'bfloat16' or None"):
        sepconv.compile(model, dtype="float16")
    half = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="mixed_float16")])
    with pytest.raises(ValueError, match="float16 is not supported"):
        sepconv.compile(half)


def test_such_a_program_as_a_layer(model, program) -> None:
    x, image = numbers(2, 16, 12, 3), keras.Input((16, 12, 3))
    classes = sepconv.layers.ProgramLayer(program, name="inner")(image)
    alone = sepconv.compile(keras.Model(image, classes))
    np.testing.assert_array_equal(alone(x), program(x))
    larger = keras.Model(image, layers.Dense(2, name="head")(classes))
    with pytest.raises(ValueError, match=r"'inner'.*has values of bfloat16, as only a whole"):
        sepconv.compile(larger)
    partial = sepconv.compile(larger, partial=True)
    assert [part.layers for part in partial.parts] == [("inner",), ("head",)]
    np.testing.assert_allclose(partial(x), larger.predict_on_batch(x), rtol=1e-5, atol=1e-6)
