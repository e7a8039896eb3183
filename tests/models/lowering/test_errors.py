"""What is no part of a network is refused, by its name."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.keras_versions import since
from helpers.lowering import compare
from keras import layers as L  # noqa: N812
from keras import ops
from keras.src.backend import set_keras_mask

import sepconv
from sepconv.models.lowering import NotLowered, lower


class Doubled(L.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


def model_of(*layers, shape=(8, 8, 4), **options):
    return keras.Sequential([keras.Input(shape, **options), *layers])


def refused(model, label, why):
    with pytest.raises(NotLowered, match=why) as info:
        lower(model)
    assert info.value.label == label
    assert repr(label) in str(info.value)


@pytest.mark.parametrize(
    "layer",
    [
        L.Conv2DTranspose(3, 3, name="odd"),
        L.Lambda(lambda x: x, name="odd"),
        L.EinsumDense("abcd,de->abce", output_shape=(None, None, 3), name="odd"),
        L.RandomCrop(4, 4, name="odd"),
        Doubled(3, name="odd"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_are_not_known(layer):
    refused(model_of(layer), "odd", "it is not known")


def test_the_error_says_where_and_what():
    inner = model_of(L.Lambda(lambda x: x, name="odd"))
    inner.name = "inner"
    model = model_of(L.ReLU(), inner)
    with pytest.raises(ValueError, match="'inner/odd' of the class Lambda cannot be compiled"):
        lower(model)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (L.LayerNormalization(axis=1, name="odd"), "not the last ones"),
        (L.UpSampling2D(2, interpolation="bicubic", name="odd"), "interpolation 'bicubic'"),
        (L.Activation(lambda x: x, name="odd"), "its activation '<lambda>' is not known"),
        (L.Activation("sparsemax", name="odd"), "'sparsemax'"),
        (L.Softmax(axis=(1, 2), name="odd"), "several axes"),
        pytest.param(
            L.RMSNormalization(axis=(1, 2), name="odd"),
            "not the last one alone",
            marks=since("3.14", "axes as a tuple"),
        ),
        (L.RMSNormalization(axis=1, name="odd"), "not the last one alone"),
        (L.Dense(3, activation=L.Lambda(lambda x: x), name="odd"), "'Lambda' is not known"),
    ],
)
def test_what_layers_are_not_lowered_with(layer, why):
    refused(model_of(layer), "odd", why)


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling")
def test_layer_normalization_by_root_mean_squares():
    refused(model_of(L.LayerNormalization(rms_scaling=True, name="odd")), "odd", "root of mean")


@pytest.mark.parametrize(
    ("layer", "shape", "why"),
    [
        (L.GroupNormalization(2, name="odd"), (None, None, 4), "sizes of its input must be known"),
        (L.UpSampling1D(2, name="odd"), (5, None), "number of its channels must be known"),
        (L.Activation("glu", name="odd"), (5, None), "must be even. It is None"),
        (L.Rescaling(np.ones((1, 1, 3)), name="odd"), (3,), "its output has the shape"),
    ],
)
def test_shapes(layer, shape, why):
    refused(model_of(layer, shape=shape), "odd", why)


def test_fewer_axes_of_sizes_that_are_not_known():
    x, y = keras.Input((None, 4, 4)), keras.Input((None, 4))
    refused(keras.Model([x, y], L.Add(name="odd")([x, y])), "odd", "fewer axes")


def test_arrays_in_the_place_of_tensors():
    x = keras.Input((8, 8, 4))
    fused = sepconv.layers.FusedConv2D(3, 1, name="odd")
    y = fused(x, np.ones((1, 8, 8, 3), "float32"))
    refused(keras.Model(x, y), "odd", "arguments that are not known")
    y = L.RandomFlip(name="odd")({"images": x})["images"]
    refused(keras.Model(x, y), "odd", "arguments that are not known")


def test_errors_name_the_layer_that_is_to_blame_where_layers_are_merged():
    odd = L.Activation(lambda x: x, name="odd")
    refused(model_of(L.Conv2D(3, 1), L.BatchNormalization(), odd), "odd", "activation")
    layer = L.Conv2D(3, 3, name="odd", activation="relu")
    model = model_of(layer)
    layer.activation = keras.activations.threshold
    with pytest.raises(NotLowered, match="'odd' of the class Conv2D"):
        lower(model)


@since("3.14", "inputs that nothing is computed of")
def test_inputs_that_may_be_missing():
    x, y = keras.Input((4,)), keras.Input((4,), optional=True, name="odd")
    refused(keras.Model([x, y], L.Dense(3)(x)), "odd", "it may be missing")


def test_arguments_of_calls():
    x = keras.Input((8, 8, 4))
    refused(keras.Model(x, L.Dropout(0.5, name="odd")(x, training=True)), "odd", "arguments")
    y = L.BatchNormalization(name="odd")(x, training=True)
    refused(keras.Model(x, y), "odd", "arguments")


def test_a_method_of_an_instance():
    layer = L.Dense(3, name="odd")
    model = model_of(layer)
    object.__setattr__(layer, "call", lambda x: x)
    refused(model, "odd", "way of its own")


def test_masks():
    model = keras.Sequential([keras.Input((5, 4)), L.Masking(), L.Dense(3)])
    refused(model, model.layers[0].name, "it is not known")
    model = keras.Sequential([keras.Input((5,)), L.Embedding(9, 4, mask_zero=True), L.Dense(3)])
    refused(model, model.layers[0].name, "it is not known")
    x = keras.Input((5, 4))
    set_keras_mask(x, keras.Input((5,), dtype="bool"))
    refused(keras.Model(x, L.Dense(3, name="odd")(x)), "odd", "a mask goes through it")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, ::-1],
        lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="reflect"),
        lambda x: ops.reshape(x, (-1, 2)),
        lambda x: ops.max(x, 1, initial=0.0),
        lambda x: ops.softmax(x, (1, 2)),
        lambda x: ops.argmax(x, 1),
        lambda x: ops.cast(x, "int32"),
        lambda x: ops.round(x, 2),
        lambda x: x[:, True],
        lambda x: ops.clip(x, np.zeros(4, "float32"), 1.0),
        lambda x: ops.reshape(x, (2, -1)),
        lambda x: ops.squeeze(x),
        lambda x: ops.pad(x, 1),
        lambda x: ops.concatenate([x, np.ones((1, 8, 8, 4), "float32")], axis=0),
    ],
)
def test_operations(function):
    x = keras.Input((8, 8, 4))
    model = keras.Model(x, [function(x), L.Dense(3)(x)])
    with pytest.raises(NotLowered):
        lower(model)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.expand_dims(x, 1),
        lambda x: x[:, None],
        lambda x: ops.stack([x, x], axis=1),
        lambda x: ops.split(x, 2, axis=1)[0],
    ],
)
def test_operations_on_sizes_that_are_not_known(function):
    x = keras.Input((None, None, 4))
    model = keras.Model(x, function(x))
    with pytest.raises(NotLowered, match=r"known|of size None"):
        lower(model)


def test_integers():
    x = keras.Input((8, 8, 4), dtype="uint8")
    for layer in (L.ReLU(name="odd"), L.MaxPooling2D(name="odd"), L.Activation("relu", name="odd")):
        refused(
            keras.Model(x, L.Rescaling(2.0)(layer(L.ZeroPadding2D()(x)))), "odd", "integers|uint8"
        )
    y = L.Rescaling(0.5)(L.Add(name="odd")([x, x]))
    refused(keras.Model(x, y), "odd", "integers")
    y = L.Rescaling(0.5)(x * x)
    with pytest.raises(NotLowered, match="uint8"):
        lower(keras.Model(x, y))


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_half_precision(policy):
    with pytest.raises(ValueError, match="float16 is not supported"):
        lower(model_of(L.Dense(3, dtype=policy)))


def test_dtypes():
    with pytest.raises(ValueError, match="dtype must be"):
        lower(model_of(L.Dense(3)), "float16")
    both = model_of(L.Dense(3), L.Dense(3, dtype="float64"))
    with pytest.raises(ValueError, match="throughout"):
        lower(both)
    x = keras.Input((4,), dtype="int32")
    with pytest.raises(ValueError, match="no layer"):
        lower(keras.Model(x, L.Flatten()(x)))


def test_models_of_other_kinds():
    with pytest.raises(TypeError, match="Sequential or Functional"):
        lower(L.Dense(3))
    with pytest.raises(ValueError, match="must be built"):
        lower(keras.Sequential([L.Dense(3)]))


def test_quantised_layers():
    model = model_of(L.Dense(3, name="odd"))
    model.quantize("int8")
    with pytest.raises(ValueError, match="'odd'"):
        lower(model)


def test_sizes_that_pytorch_must_know(engine):
    model = model_of(L.AveragePooling2D(2, 1, padding="same", name="odd"), shape=(None, None, 4))
    if engine == "torch":
        refused(model, "odd", "sizes that are not known")
    else:
        compare(model, np.ones((2, 5, 5, 4), "float32"))
