"""`check_copy` finds what a copy lost, and names the layer."""

from __future__ import annotations

import time
import warnings

import keras
import numpy as np
import pytest
from helpers.networks import functional, numbers, randomize, sequential, subclassed
from helpers.verification import check, refused
from keras import layers

import sepconv
from sepconv.models.copying import copy_model

BACKEND = keras.backend.backend()


@pytest.mark.parametrize("make", [sequential, functional, subclassed])
def test_a_good_copy_is_verified(make):
    model = randomize(make())
    assert check(model, copy_model(model)).startswith("verified: the predictions are the same")
    copy, _ = sepconv.accelerate(model)
    assert check(model, copy).startswith("verified")
    assert check(copy, sepconv.to_stock(copy)).startswith("verified")


def test_an_optimized_model_is_verified_under_the_names_of_the_original():
    model = randomize(sequential())
    copy, _ = sepconv.optimize(model)
    assert check(model, copy).startswith("verified")
    dense = copy.layers[-1]
    dense.set_weights([2 * w for w in dense.get_weights()])
    dense.name = "last"
    refused(model, copy, model.layers[-1].name, paired={"last": model.layers[-1].name})
    # Without a counterpart nothing is named.
    with pytest.raises(ValueError, match="No single layer"):
        check(model, copy, paired=lambda name: None)


# --- What a copy may lose -------------------------------------------------------------------------


def test_a_normalization_that_lost_its_mean():
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(100 + 5 * numbers(50, 6))
    model = keras.Sequential([keras.Input((6,)), normalization, layers.Dense(3, name="dense")])
    copy = copy_model(model)
    copy.layers[0].finalize_state()
    assert check(model, copy).startswith("verified")
    copy.layers[0].adapt_mean.assign(keras.ops.zeros(6))
    copy.layers[0].finalize_state()
    refused(model, copy, "normalization")


def test_a_kernel_of_zeros_in_a_nested_model():
    model = randomize(functional())
    copy = copy_model(model)
    inner = copy.get_layer("encoder").get_layer("inner")
    inner.depthwise_kernel.assign(inner.depthwise_kernel * 0)
    message = refused(model, copy, "encoder/inner")
    assert "(SeparableConv2D)" in message
    assert "1.0e-04 is allowed" in message


def test_a_layer_in_a_wrapper_and_one_in_a_subclassed_model():
    model = randomize(functional())
    copy = copy_model(model)
    row = copy.get_layer("rows").layer
    row.kernel.assign(row.kernel * 2)
    message = refused(model, copy, "rows/row")
    assert "DepthwiseConv1D" in message
    model = randomize(subclassed())
    copy = copy_model(model)
    copy.head["dense"].bias.assign(copy.head["dense"].bias + 1)
    refused(model, copy, copy.head["dense"].name)


def test_an_embedding_in_another_order():
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(50, 4, name="embedding"),
            layers.LSTM(3, name="lstm"),
        ]
    )
    copy = copy_model(model)
    assert check(model, copy).startswith("verified")
    embeddings = copy.get_layer("embedding").embeddings
    embeddings.assign(keras.ops.flip(embeddings, 0))
    refused(model, copy, "embedding")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="models of text are TensorFlow's alone")
def test_a_vocabulary_that_was_lost():
    lookup = layers.StringLookup(vocabulary=["red", "green", "blue"], name="lookup")
    model = keras.Sequential(
        [keras.Input((2,), dtype="string"), lookup, layers.Embedding(4, 2, name="embedding")]
    )
    other = layers.StringLookup(vocabulary=["blue", "green", "red"], name="lookup")
    copy = keras.Sequential(
        [keras.Input((2,), dtype="string"), other, layers.Embedding(4, 2, name="embedding")]
    )
    copy.set_weights(model.get_weights())
    refused(model, copy, "lookup")
    other.set_vocabulary(["red", "green", "blue"])
    assert check(model, copy).startswith("verified")


def test_another_activation():
    model = randomize(sequential())
    copy = copy_model(model)
    copy.get_layer("separable").activation = keras.activations.tanh
    refused(model, copy, "separable")


def test_what_the_predictions_hide_is_found_in_the_layers():
    """A network with first weights predicts the same whatever comes in."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(3, kernel_initializer="zeros", name="dense"),
        ]
    )
    copy = copy_model(model)
    kernel = copy.get_layer("conv").kernel
    kernel.assign(kernel * 0)
    assert "the predictions on this input agree" in refused(model, copy, "conv")


def test_a_copy_that_fails_and_one_of_another_shape():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")])
    wide = keras.Sequential([keras.Input((5,)), layers.Dense(3, name="dense")])
    with pytest.raises(ValueError, match=r"test: the copy of .* does not predict on inputs of"):
        check(model, wide)
    more = keras.Sequential([keras.Input((4,)), layers.Dense(7, name="dense")])
    assert "in shape" in refused(model, more, "dense")


def test_a_layer_called_twice_is_told_by_its_call():
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,))
    model = keras.Model(x, shared(layers.ReLU(name="between")(shared(x))))
    copy = copy_model(model)
    copy.get_layer("between").negative_slope = 0.5
    refused(model, copy, "between")


# --- What is compared with ------------------------------------------------------------------------


def test_given_inputs_are_taken():
    model = keras.Sequential([keras.Input((2,)), layers.ReLU(name="relu")])
    copy = keras.Sequential([keras.Input((2,)), layers.ReLU(max_value=9.0, name="relu")])
    assert check(model, copy).startswith("verified")
    assert check(model, copy, np.array([[1.0, 2.0]])).startswith("verified")
    assert check(model, copy, np.array([[8.0, 2.0]])).startswith("verified")
    with pytest.raises(ValueError, match="'relu'"):
        check(model, copy, np.array([[1.0, 10.0]]))
    with pytest.raises(ValueError, match="verify must be True, False or inputs of the model"):
        check(model, copy, np.ones((1, 3, 5, 7)))
    assert check(model, copy, False) == "not verified: verify=False"


def test_a_model_that_draws_numbers_is_not_verifiable():
    class Noise(layers.Layer):
        def call(self, x):
            return x + np.random.default_rng().standard_normal(3).astype("float32")

    x = keras.Input((3,))
    model = keras.Model(x, Noise()(x))
    copy = keras.Model(x, Noise()(x))
    assert check(model, copy).startswith("not verifiable: the model's own predictions differ")


def test_inputs_that_cannot_be_made_are_a_warning():
    class Picky(keras.Model):
        def call(self, x):
            return x["a"] + x["b"]

    model = Picky()
    with pytest.warns(UserWarning, match="test: the copy was not verified, since the model"):
        note = check(model, model)
    assert note.startswith("not verified: the model")
    assert "does not know the shape of its inputs" in note
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert check(model, model, {"a": np.ones(3), "b": np.ones(3)}).startswith("verified")


def test_values_in_the_place_of_weights():
    model = randomize(sequential())
    copy = copy_model(model)
    dense = copy.layers[-1]
    new = numbers(*dense.kernel.shape)
    dense.kernel.assign(new)
    before = model.get_weights()
    refused(model, copy, dense.name)
    values = [(model.layers[-1].kernel, new)]
    assert check(model, copy, values=values).startswith("verified")
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


def test_numbers_that_are_not_finite_must_be_so_in_both():
    def root(x):
        return keras.ops.sqrt(x)

    def logarithm(x):
        return keras.ops.where(x < 0, keras.ops.sqrt(x), keras.ops.log(x))

    x = keras.Input((50,))
    model, same, other = (
        keras.Model(x, layers.Lambda(f, name="f", output_shape=(50,))(x))
        for f in (root, root, logarithm)
    )
    assert "are not finite, in both" in check(model, same)
    refused(model, other, "f")
    strange = layers.Lambda(
        lambda x: keras.ops.sqrt(keras.ops.abs(x)), output_shape=(50,), name="f"
    )
    assert "in what is not finite" in refused(model, keras.Model(x, strange(x)), "f")


def test_integers_are_compared_exactly():
    x = keras.Input((5,))
    model = keras.Model(x, keras.ops.argmax(x, -1))
    same = keras.Model(x, keras.ops.argmax(x, -1))
    other = keras.Model(x, keras.ops.argmin(x, -1))
    assert check(model, same).startswith("verified")
    with pytest.raises(ValueError, match="does not predict what the original does"):
        check(model, other)


def test_what_the_last_digit_of_the_input_moves_is_allowed():
    """The difference of two large numbers: rounding alone changes it a lot."""
    x = keras.Input((20,))

    def make(scale):
        far = layers.Lambda(lambda x: x * scale + 3e4, output_shape=(20,), name="far")(x)
        return keras.Model(
            x, layers.Lambda(lambda x: x - 3e4, output_shape=(20,), name="near")(far)
        )

    model = make(1e-2)
    inputs = np.full((1, 20), 1e6, "float32") + np.arange(20, dtype="float32")
    assert check(model, make(1.000003e-2), inputs).startswith("verified")
    with pytest.raises(ValueError, match=r"'far'|'near'"):
        check(model, make(1.01e-2), inputs)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_types_are_compared_by_their_own_precision(policy):
    def make(dtype):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.SeparableConv2D(6, 3, dtype=dtype, name="conv"),
                layers.Dense(4, dtype=dtype, name="dense"),
            ]
        )
        return randomize(model)

    model = make(policy)
    # The same in float32 differs by what rounding does, far more than 1e-4.
    assert check(model, make("float32")).startswith("verified")
    copy = make(policy)
    copy.get_layer("conv").bias.assign(copy.get_layer("conv").bias + 1)
    refused(model, copy, "conv")


def test_mobilenet_takes_moments():
    """A second, on a machine with nothing else to do: measured in time of the processor."""
    model = keras.applications.MobileNet(weights=None)
    copy, _ = sepconv.accelerate(model)
    start = time.process_time()
    assert check(model, copy).startswith("verified")
    assert time.process_time() - start < 2


def test_what_roundings_make_of_nothing_is_passed_over():
    """Tokens cannot be moved by a rounding, so weights are: the mean of this layer is all noise."""
    tokens = keras.Input((8,), dtype="int32")
    x = layers.Embedding(12, 8, embeddings_initializer="normal", name="tokens")(tokens)
    x = layers.LayerNormalization(name="normal")(layers.Dense(64, name="dense")(x))
    mean = layers.GlobalAveragePooling1D(data_format="channels_first", name="mean")(x)
    model = keras.Model(tokens, [layers.Dense(3, name="head")(layers.Flatten()(x)), mean])
    outputs = keras.Model(tokens, layers.Concatenate()(model.outputs))
    copy = copy_model(outputs)
    dense = copy.get_layer("dense")
    dense.kernel.assign(dense.kernel * (1 + 2e-7))  # as another order of adding up would
    assert np.abs(outputs.predict(np.zeros((1, 8), "int32"), verbose=0)[0, 3:]).max() < 1e-6
    assert check(outputs, copy).startswith("verified")


def test_a_warning_names_the_line_of_the_call():
    """However many of our functions lie between."""
    model = keras.Sequential([layers.Activation("relu")])  # knows no shape
    with pytest.warns(UserWarning, match="was not verified") as caught:
        sepconv.accelerate(model)
    assert {one.filename for one in caught if one.category is UserWarning} == {__file__}
