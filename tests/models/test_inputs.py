"""Inputs that are made for a model are of the kind that its first layers take."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from sepconv.models.inputs import InputsError, generate, random_inputs
from sepconv.models.running import run

BACKEND = keras.backend.backend()


def made(model):
    """The first inputs, on which the model must predict."""
    inputs = next(generate(model))
    run(model, inputs)
    return inputs


def after(layer, shape=(6,), dtype="float32", more=()):
    """A model that begins with a layer."""
    return keras.Sequential([keras.Input(shape, dtype=dtype), layer, *more])


def test_plain_inputs_are_standard_normal_and_the_same_each_time():
    model = after(layers.Dense(2), (500,))
    x = made(model)
    assert x.dtype == "float32"
    assert x.shape == (2, 500)
    assert abs(x.mean()) < 0.2
    assert abs(x.std() - 1) < 0.2
    np.testing.assert_array_equal(x, next(generate(model)))
    assert (x != next(generate(model, seed=1))).any()


def test_global_generators_are_not_used():
    state = np.random.get_state()[1].copy()
    made(after(layers.Dense(2)))
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(
    ("layer", "low", "high"),
    [
        (layers.Rescaling(1 / 255), 0, 255),
        (layers.Rescaling(1 / 127.5, offset=-1), 0, 255),
        (layers.Rescaling(2.0), 0, 0.5),
        (layers.Normalization(mean=[100.0, 120.0, 140.0], variance=[25.0] * 3), 70, 170),
    ],
)
def test_pictures_are_in_the_range_that_is_rescaled(layer, low, high):
    flip = layers.RandomFlip(name="flip")
    model = keras.Sequential([keras.Input((20, 20, 3)), flip, layer, layers.Conv2D(2, 3)])
    x = made(model)
    assert low <= x.min() < low + 0.3 * (high - low)
    assert high - 0.3 * (high - low) < x.max() <= high


def test_an_efficientnet_takes_pictures():
    model = keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), classes=3)
    x = next(generate(model))
    assert x.max() > 250
    assert x.min() >= 0


def test_constants_that_divide_pictures():
    x = keras.Input((30, 30, 1))
    assert made(keras.Model(x, x / 255.0)).max() > 250
    assert made(keras.Model(x, x * (1 / 255))).max() > 250
    assert made(keras.Model(x, x / 2.0)).max() < 10


def test_normalization_that_was_adapted_and_of_batches():
    layer = layers.Normalization()
    data = np.random.default_rng(0).standard_normal((99, 6)) * [1, 2, 3, 4, 5, 6] + 100
    layer.adapt(data.astype("float32"))
    model = after(layer)
    x = random_inputs(model, batch=2000)
    np.testing.assert_allclose(x.mean(0), data.mean(0), atol=1)
    np.testing.assert_allclose(x.std(0), data.std(0), rtol=0.2)
    model = after(layers.BatchNormalization())
    model.layers[0].moving_mean.assign(np.full(6, -50.0, "float32"))
    assert random_inputs(model).max() < -40


def test_integers_are_below_the_size_of_what_they_look_up():
    for dtype in ("int32", "float32", "uint8"):
        x = made(after(layers.Embedding(300, 2), (400,), dtype))
        assert x.dtype == dtype
        assert x.min() >= 0
        assert 200 < x.max() < 300
        assert (x == np.round(x)).all()
    x = made(after(layers.CategoryEncoding(7, output_mode="multi_hot"), (40,), "int32"))
    assert set(np.unique(x)) == set(range(7))


def test_the_graph_is_followed_to_the_layers_that_tell():
    inner_x = keras.Input((12,), dtype="int32")
    inner = keras.Model(inner_x, layers.Embedding(9, 2)(inner_x), name="inner")
    a = keras.Input((12,), dtype="int32", name="a")
    b = keras.Input((3, 4), dtype="int32", name="b")
    c = keras.Input((5,), dtype="int32", name="c")
    x = inner(layers.Concatenate()([keras.ops.reshape(b, (-1, 12)), a])[:, :12])
    y = keras.ops.one_hot(c, 4)
    model = keras.Model({"a": a, "b": b, "c": c}, [x, y])
    inputs = random_inputs(model, batch=50)
    assert {key: x.shape for key, x in inputs.items()} == {
        "a": (50, 12),
        "b": (50, 3, 4),
        "c": (50, 5),
    }
    assert inputs["a"].max() == inputs["b"].max() == 8
    assert inputs["c"].max() == 3
    run(model, inputs)


def test_an_input_that_several_look_up_fits_the_smallest():
    x = keras.Input((50,), dtype="int32")
    model = keras.Model(x, [layers.Embedding(100, 2)(x), layers.Embedding(5, 2)(x)])
    assert made(model).max() == 4


def test_a_layer_of_ones_own_with_embeddings_in_it():
    class Tokens(layers.Layer):
        def __init__(self):
            super().__init__()
            self.words, self.places = layers.Embedding(30, 4), layers.Embedding(20, 4)

        def call(self, x):
            return self.words(x) + self.places(keras.ops.arange(x.shape[-1]))

    x = made(after(Tokens(), (15,), "int32"))
    assert 10 < x.max() < 20


def test_boundaries_have_numbers_on_both_sides():
    x = random_inputs(after(layers.Discretization([-2.0, 0.0, 5.0])), batch=50)
    for edge in (-2.0, 0.0, 5.0):
        assert (x < edge).any()
        assert (x > edge).any()
        assert (x != edge).all()


def test_integers_that_are_looked_up_and_one_that_is_not():
    x = random_inputs(after(layers.IntegerLookup(vocabulary=[10, 20, 30]), dtype="int64"), batch=20)
    assert set(np.unique(x)) == {10, 20, 30, 31}
    lookup = layers.IntegerLookup(vocabulary=[10, 20, 30], num_oov_indices=0)
    assert set(np.unique(random_inputs(after(lookup, dtype="int64"), batch=20))) == {10, 20, 30}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="models of text are TensorFlow's alone")
def test_words_and_sentences():
    lookup = layers.StringLookup(vocabulary=["red", "green"])
    x = made(after(lookup, (40,), "string"))
    assert set(np.unique(x)) == {"red", "green", "unheardof"}
    vectorize = layers.TextVectorization(vocabulary=["sun", "moon"], output_sequence_length=4)
    texts = made(after(vectorize, (1,), "string", [layers.Embedding(4, 2)]))
    assert texts.shape == (2, 1)
    assert {w for t in texts.ravel() for w in t.split()} <= {"sun", "moon", "unheardof"}
    assert made(after(layers.Hashing(5), (3,), "string")).dtype.kind == "U"


def test_truths_have_some_of_both_and_never_none():
    x, mask = keras.Input((9, 4)), keras.Input((9,), dtype="bool")
    model = keras.Model([x, mask], layers.LSTM(2)(x, mask=mask))
    _, truths = made(model)
    assert truths.dtype == bool
    assert truths.any(-1).all()
    assert not truths.all()


def test_open_sizes_are_tried_until_the_model_takes_one():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(1, 100)])
    shapes = [x.shape for x in generate(model)]
    assert shapes[:3] == [(2, 64, 64, 3), (2, 32, 32, 3), (1, 128, 128, 3)]
    fixed = keras.Input((4, 4), batch_size=5)
    assert [x.shape for x in generate(keras.Model(fixed, layers.ReLU()(fixed)))] == [(5, 4, 4)]
    sequence = keras.Sequential([keras.Input((None, 4)), layers.Conv1D(2, 3)])
    assert made(sequence).shape == (2, 16, 4)
    assert random_inputs(sequence, batch=3, size=(11,)).shape == (3, 11, 4)


def test_structures_and_optional_inputs():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b", optional=True)
    model = keras.Model({"a": a, "b": b}, layers.Dense(2)(a))
    inputs = made(model)
    assert inputs["a"].shape == inputs["b"].shape == (2, 3)


def test_a_subclassed_model_gets_what_it_was_built_with():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale, self.dense = layers.Rescaling(1 / 255), layers.Dense(2)

        def call(self, x):
            return self.dense(self.scale(x))

    model = Own()
    with pytest.raises(InputsError, match="does not know the shape of its inputs"):
        next(generate(model))
    model(np.zeros((7, 5), "float32"))
    x = made(model)
    assert x.shape == (2, 5)
    assert x.max() > 100


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no sparse inputs in Keras")
def test_sparse_inputs():
    x = keras.Input((6,), sparse=True)
    model = keras.Model(x, layers.Dense(2)(x))
    assert run(model, next(generate(model))).outputs[0].shape == (2, 2)
