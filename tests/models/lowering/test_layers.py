"""Every layer that can be lowered: the reference computes what Keras computes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.lowering import compare, compare_each, randomized
from keras import layers as L  # noqa: N812
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from sepconv import layers
from sepconv.models.lowering import lower

IMAGE, SEQUENCE = (11, 10, 6), (11, 6)


def test_convolutions_of_images():
    compare_each(
        IMAGE,
        {
            "depthwise": L.DepthwiseConv2D(3, depth_multiplier=2, activation="silu"),
            "depthwise_same": L.DepthwiseConv2D((3, 2), 2, padding="same", activation="gelu"),
            "depthwise_ours": layers.DepthwiseConv2D(3, padding=((2, 1), (0, 3)), dilation_rate=2),
            "separable": L.SeparableConv2D(5, 3, padding="same", activation="relu6"),
            "separable_ours": layers.SeparableConv2D(5, (1, 3), (2, 1), use_bias=False),
            "ordinary": L.Conv2D(5, 3, 2, padding="same", activation="tanh"),
            "dilated": L.Conv2D(5, 3, dilation_rate=2, use_bias=False),
            "ours": layers.Conv2D(9, 1, activation="relu"),
            "pointwise": L.Conv2D(4, 1, 2, padding="same", activation="hard_silu"),
            "grouped": L.Conv2D(8, 3, groups=2, activation="relu"),
            "grouped_unbiased": L.Conv2D(6, 2, 2, groups=3, use_bias=False, padding="same"),
            "as_depthwise": L.Conv2D(12, 3, groups=6, strides=2),
            "dense": L.Dense(4, activation="relu"),
        },
    )


def test_convolutions_of_sequences():
    compare_each(
        SEQUENCE,
        {
            "depthwise": L.DepthwiseConv1D(3, depth_multiplier=2, activation="relu"),
            "depthwise_ours": layers.DepthwiseConv1D(3, 2, padding="causal", dilation_rate=2),
            "depthwise_padded": layers.DepthwiseConv1D(3, padding=(0, 2)),
            "separable": L.SeparableConv1D(5, 3, 2, padding="same", activation="silu"),
            "separable_ours": layers.SeparableConv1D(5, 3, padding="causal"),
            "ordinary": L.Conv1D(5, 3, 2, padding="same", activation="relu"),
            "causal": L.Conv1D(5, 3, padding="causal", dilation_rate=2),
            "pointwise": L.Conv1D(4, 1, 2, padding="causal"),
            "grouped": L.Conv1D(4, 3, groups=2, padding="causal", activation="selu"),
            "as_depthwise": L.Conv1D(6, 3, groups=6),
            "dense": L.Dense(4, activation="softmax", use_bias=False),
        },
    )


def test_dense_of_vectors_shares_equal_weights():
    network = compare_each((6,), {"a": L.Dense(4), "b": L.Dense(4, activation="mish")})
    assert len(network.tensors) == 4
    shared = L.Dense(6, name="shared")
    x = keras.Input((6,))
    model = randomized(keras.Model(x, shared(L.ReLU()(shared(x)))))
    network = compare(model, np.ones((2, 6), "float32"))
    assert len(network.tensors) == 2
    assert [step.operation for step in network.steps] == ["dense", "dense"]


@pytest.mark.parametrize(
    ("shape", "make"),
    [
        ((8, 8, 4), lambda: L.DepthwiseConv2D(3, padding="same")),
        ((8, 8, 4), lambda: layers.SeparableConv2D(4, 3, padding="same", activation="relu")),
        ((8, 8, 4), lambda: L.Conv2D(4, 3, padding="same")),
        ((8, 8, 4), lambda: layers.Conv2D(4, 3, groups=4, padding="same")),
        ((8, 8, 4), lambda: layers.FusedConv2D(4, 3, padding="same")),
        ((8, 4), lambda: L.DepthwiseConv1D(3, padding="same")),
        ((8, 4), lambda: L.SeparableConv1D(4, 3, padding="same")),
        ((8, 4), lambda: L.Conv1D(4, 3, padding="causal", groups=2)),
    ],
)
def test_layers_that_are_called_twice(shape, make):
    shared, x = make(), keras.Input(shape)
    model = randomized(keras.Model(x, shared(L.Activation("tanh")(shared(x)))))
    rng = np.random.default_rng(0)
    network = compare(model, rng.normal(size=(2, *shape)).astype("float32"))
    weights = [step.weights for step in network.steps if step.operation == "convolution"]
    half = len(weights) // 2
    assert weights[:half] == weights[half:]  # the same tensors


def test_channels_first():
    first = {"data_format": "channels_first"}
    compare_each(
        (6, 11, 10),
        {
            "depthwise": layers.DepthwiseConv2D(3, padding="same", strides=2, **first),
            "separable": layers.SeparableConv2D(5, 3, activation="relu", **first),
            "fused": layers.FusedConv2D(4, 3, depthwise_use_bias=True, **first),
            "normalized": L.BatchNormalization(axis=1),
            "groups": L.GroupNormalization(3, axis=1),
            "mean": L.GlobalAveragePooling2D(keepdims=True, **first),
            "padded": L.ZeroPadding2D(((1, 0), (2, 3)), **first),
            "cropped": L.Cropping2D(((1, 0), (2, 3)), **first),
            "enlarged": L.UpSampling2D((2, 3), **first),
            "flat": L.Flatten(**first),
        },
    )


def test_ordinary_convolutions_with_channels_first(engine):
    if engine == "tensorflow":
        pytest.skip("Keras cannot compute them on TensorFlow's CPU kernels")
    first = {"data_format": "channels_first"}
    compare_each(
        (6, 11, 10),
        {
            "ordinary": L.Conv2D(5, 3, 2, padding="same", **first),
            "grouped": L.Conv2D(4, 3, groups=2, **first),
            "depthwise": L.DepthwiseConv2D(3, activation="relu", **first),
            "largest": L.MaxPooling2D(3, 2, padding="same", **first),
            "mean": L.AveragePooling2D(3, 2, padding="same", **first),
        },
    )
    compare_each(
        (6, 11),
        {
            "ordinary": L.Conv1D(5, 3, 2, padding="same", **first),
            "depthwise": layers.DepthwiseConv1D(3, **first),
            "largest": L.MaxPooling1D(3, 2, padding="same", **first),
            "mean": L.GlobalAveragePooling1D(**first),
        },
    )


def test_a_fused_layer_with_everything():
    x = keras.Input((8, 8, 6))
    fused = layers.FusedConv2D(
        6,
        3,
        padding="same",
        depthwise_use_bias=True,
        depthwise_activation="relu6",
        activation="elu",
    )
    alone = layers.FusedConv2D(5, (3, 2), padding=((1, 0), (2, 1)), depth_multiplier=None)
    model = randomized(keras.Model(x, alone(fused(x, x))))
    network = compare(model, np.random.default_rng(0).normal(size=(2, 8, 8, 6)).astype("float32"))
    assert [step.operation for step in network.steps] == ["convolution", "unary", "convolution"]
    assert network.steps[0].inputs == [0, 0]


def test_pooling():
    compare_each(
        IMAGE,
        {
            "largest": L.MaxPooling2D(2),
            "largest_same": L.MaxPooling2D(3, 2, padding="same"),
            "mean": L.AveragePooling2D((2, 3), (1, 2)),
            "mean_same": L.AveragePooling2D(3, 1, padding="same"),
            "mean_odd": L.AveragePooling2D((2, 3), 1, padding="same"),
            "mean_strided": L.AveragePooling2D(3, 2, padding="same"),
            "global": L.GlobalAveragePooling2D(),
            "global_largest": L.GlobalMaxPooling2D(keepdims=True),
        },
    )
    compare_each(
        SEQUENCE,
        {
            "largest": L.MaxPooling1D(2),
            "mean": L.AveragePooling1D(3, 2, padding="same"),
            "mean_odd": L.AveragePooling1D(4, 2, padding="same"),
            "global": L.GlobalAveragePooling1D(keepdims=True),
            "global_largest": L.GlobalMaxPooling1D(),
        },
    )


def test_sizes_that_are_not_known():
    network = compare_each(
        (None, None, 6),
        {
            "convolution": L.SeparableConv2D(5, 3, padding="same"),
            "largest": L.MaxPooling2D(2),
            "global": L.GlobalAveragePooling2D(),
            "flat": lambda x: L.Flatten()(L.GlobalMaxPooling2D(keepdims=True)(x)),
            "row": L.Reshape((-1, 6)),
            "enlarged": L.UpSampling2D(2),
            "sum": lambda x: L.Add()([L.Conv2D(6, 1)(x), L.Activation("tanh")(x)]),
        },
    )
    assert network.inputs[0].shape == (None, None, None, 6)
    compare_each((None, 6), {"row": lambda x: keras.ops.expand_dims(x, 1)})


def test_values_without_axes():
    compare(keras.Sequential([keras.Input(()), L.Flatten()]), np.ones(3, "float32"))


def test_rescaling_of_images_with_channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        compare_each((3, 5, 4), {"rescaled": L.Rescaling([1.0, 2.0, 3.0], 0.5)})
    finally:
        keras.config.set_image_data_format(before)


def test_normalizations():
    compare_each(
        IMAGE,
        {
            "batch": L.BatchNormalization(),
            "batch_plain": L.BatchNormalization(center=False, scale=False, axis=2),
            "batch_ours": layers.BatchNormalization(),
            "layer": L.LayerNormalization(),
            "layer_of_two": L.LayerNormalization(axis=(-2, -1), epsilon=1e-2),
            "layer_plain": L.LayerNormalization(center=False, scale=False),
            "groups": L.GroupNormalization(3),
            "group_each": L.GroupNormalization(-1, center=False),
            "one_group": L.GroupNormalization(1, center=False, scale=False),
            "root_mean_square": L.RMSNormalization(),
            "unit": L.UnitNormalization(),
            "unit_of_two": L.UnitNormalization(axis=(1, 2)),
            "rescaled": L.Rescaling(1 / 127.5, -1),
            "rescaled_each": L.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2.0),
            "normalized": L.Normalization(mean=[0.5] * 6, variance=[2.0, 1.0, 0.0, 3.0, 4.0, 5.0]),
            "normalized_all": L.Normalization(axis=None, mean=3.0, variance=4.0),
            "normalized_rows": L.Normalization(axis=(1, 3), mean=3.0, variance=4.0),
            "inverted": L.Normalization(mean=[0.5] * 6, variance=[2.0] * 6, invert=True),
            "scale": LayerScale(0.1, 6),
        },
    )


def test_adapted_normalization():
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)).astype("float32"))
    compare(keras.Sequential([keras.Input((4,)), layer]), np.ones((2, 4), "float32"))


def test_layers_that_do_nothing_at_inference():
    branches = {
        "dropout": L.Dropout(0.5),
        "spatial": L.SpatialDropout2D(0.5),
        "alpha": L.AlphaDropout(0.5),
        "gaussian": L.GaussianDropout(0.5),
        "noise": L.GaussianNoise(0.5),
        "regularization": L.ActivityRegularization(0.5),
        "identity": L.Identity(),
        "linear": L.Activation("linear"),
        "brightness": L.RandomBrightness(0.5),
        "contrast": L.RandomContrast(0.5),
        "flip": L.RandomFlip(),
        "rotation": L.RandomRotation(0.5),
        "translation": L.RandomTranslation(0.5, 0.5),
        "zoom": L.RandomZoom(0.5),
        "depth": StochasticDepth(0.5),
    }
    x = np.random.default_rng(0).uniform(-300, 300, (2, *IMAGE)).astype("float32")
    network = compare_each(IMAGE, branches, x)
    assert network.steps == []
    assert network.outputs == [0] * len(branches)


def test_reshaping():
    compare_each(
        IMAGE,
        {
            "padded": L.ZeroPadding2D(((1, 0), (2, 3))),
            "cropped": L.Cropping2D(((1, 0), (2, 3))),
            "enlarged": L.UpSampling2D((2, 3)),
            "enlarged_smoothly": L.UpSampling2D((2, 3), interpolation="bilinear"),
            "flat": L.Flatten(),
            "reshaped": L.Reshape((2, -1, 3)),
            "permuted": L.Permute((3, 1, 2)),
        },
    )
    compare_each(
        SEQUENCE,
        {
            "padded": L.ZeroPadding1D((1, 2)),
            "cropped": L.Cropping1D((1, 2)),
            "enlarged": L.UpSampling1D(3),
            "flat": L.Flatten(data_format="channels_first"),
        },
    )
    compare_each((6,), {"repeated": L.RepeatVector(3), "flat": L.Flatten()})


def test_merging():
    rng = np.random.default_rng(0)
    a, b, c = keras.Input((5, 4)), keras.Input((5, 4)), keras.Input((4,))
    kinds = (L.Add, L.Multiply, L.Maximum, L.Minimum, L.Average)
    outputs = {kind.__name__: kind()([a, b, a]) for kind in kinds}
    outputs["subtract"] = L.Subtract()([a, b])
    outputs["concatenate"] = L.Concatenate(axis=1)([a, b])
    outputs["scaled"] = CustomScaleLayer(0.17)([a, b])
    outputs["of_fewer_axes"] = L.Multiply()([a, c])
    model = keras.Model([a, b, c], outputs)
    arrays = [rng.normal(size=(2, *x.shape[1:])).astype("float32") for x in (a, b, c)]
    compare(model, *arrays)


def test_models_in_models_and_float64():
    encoder = keras.Sequential(
        [
            keras.Input(IMAGE, dtype="float64"),
            L.SeparableConv2D(4, 3, dtype="float64"),
            L.ReLU(dtype="float64"),
        ],
        name="encoder",
    )
    x = keras.Input(IMAGE, dtype="float64")
    model = keras.Model(x, L.Dense(3, dtype="float64")(encoder(x)))
    network = lower(randomized(model))
    assert network.dtype == "float64"
    assert all(tensor.dtype == np.float64 for tensor in network.tensors)


def test_another_dtype():
    model = keras.Sequential([keras.Input((6,)), L.Dense(3)])
    network = compare(model, np.ones((2, 6), "float32"), dtype="float64")
    assert network.dtype == "float64"


def test_images_of_integers():
    x = keras.Input((8, 8, 3), dtype="uint8")
    y = L.Rescaling(1 / 255)(L.Cropping2D(1)(L.Permute((2, 1, 3))(x)))
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("uint8")
    compare(keras.Model(x, L.Conv2D(3, 3)(y)), image)
