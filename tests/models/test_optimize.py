"""sepconv.optimize: the same predictions from fewer layers, for every pattern that it knows."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.keras_versions import since
from helpers.optimizing import X, check, functional, kinds, predictions, randomised
from keras import layers as L  # noqa: N812

import sepconv
from sepconv import layers
from sepconv.models.record import Record


def test_our_ordinary_convolutions_are_folded_as_keras_own():
    def build(kit, x):
        x = L.ReLU(6.0)(L.BatchNormalization()(kit.Conv2D(16, 1, use_bias=False, name="a")(x)))
        x = L.BatchNormalization()(kit.Conv2D(16, 3, groups=16, name="b")(x))
        return L.BatchNormalization()(L.ZeroPadding2D(1)(kit.Conv2D(4, 3, name="c")(x)))

    found = []
    for kit in (L, layers):
        optimized, _ = check(functional(lambda x, kit=kit: build(kit, x)))
        found.append([type(layer).__name__ for layer in optimized.layers])
    assert found[0] == found[1]


def test_a_mobilenet_block():
    def build(x):
        x = L.ZeroPadding2D(((0, 1), (0, 1)))(x)
        x = L.DepthwiseConv2D(3, strides=2, use_bias=False, name="dw")(x)
        x = L.ReLU(6.0)(L.BatchNormalization(name="bn")(x))
        x = L.Conv2D(16, 1, use_bias=False)(x)
        return L.ReLU(6.0, name="last")(L.BatchNormalization()(x))

    optimized, record = check(functional(build), fused=["FusedConv2D"])
    (layer,) = [v for v in optimized.layers if isinstance(v, layers.FusedConv2D)]
    assert layer.name == "last"
    assert layer.padding == ((0, 1), (0, 1))
    notes = {change.layer: change for change in record}
    assert notes["bn"].done
    assert notes["bn"].note == "in the FusedConv2D 'last'"
    assert record.changed == 7
    assert "optimize: 7 of 7" in str(record)


def test_an_inverted_residual():
    def build(x):
        y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(24, 1, use_bias=False)(x)))
        y = L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = L.ReLU(6.0)(L.BatchNormalization()(y))
        y = L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(y))
        return L.ReLU()(L.Add()([x, y]))

    check(functional(build), fused=["FusedConv2D", "FusedConv2D"])


def test_squeeze_and_excite_with_swish():
    def build(x):
        y = L.DepthwiseConv2D(5, padding="same", use_bias=False)(x)
        y = L.Activation("swish")(L.BatchNormalization()(y))
        s = L.GlobalAveragePooling2D(keepdims=True)(y)
        s = L.Conv2D(2, 1, activation="swish")(s)
        s = L.Conv2D(8, 1, activation="sigmoid")(s)
        y = L.Multiply()([y, s])
        y = L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(y))
        return L.Add(name="sum")([L.Dropout(0.2)(y), x])

    names = ["FusedConv2D", "GlobalAveragePooling2D"]
    check(functional(build), fused=[*names, *["FusedConv2D"] * 2, "Multiply", "FusedConv2D"])


def test_hard_swish_and_a_hard_sigmoid_of_operations():
    def build(x):
        y = L.Activation("hard_swish")(L.BatchNormalization()(L.Conv2D(24, 1)(x)))
        y = L.DepthwiseConv2D(3, padding="same")(y)
        y = L.Activation("hard_swish")(L.BatchNormalization()(y))
        s = L.Conv2D(24, 1)(L.GlobalAveragePooling2D(keepdims=True)(y))
        y = L.Multiply()([y, L.ReLU(6.0)(s + 3.0) * (1.0 / 6.0)])
        return L.Conv2D(8, 1)(y)

    optimized, _ = check(functional(build))
    assert kinds(optimized).count("FusedConv2D") == 4


def test_xceptions_block():
    def build(x):
        y = L.Activation("relu")(x)
        y = L.BatchNormalization()(L.SeparableConv2D(8, 3, padding="same", use_bias=False)(y))
        y = L.Activation("relu")(y)
        y = L.BatchNormalization()(L.SeparableConv2D(16, 3, padding="same", use_bias=False)(y))
        y = L.MaxPooling2D(3, strides=2, padding="same")(y)
        skip = L.BatchNormalization()(L.Conv2D(16, 1, strides=2, padding="same")(x))
        return L.Add()([y, skip])

    optimized, _ = check(functional(build))
    assert sorted(kinds(optimized)) == ["Activation", *["FusedConv2D"] * 3, "MaxPooling2D"]


@pytest.mark.parametrize("size", [11, 12])
def test_a_stem(size):
    def build(x):
        x = L.ZeroPadding2D(((0, 1), (0, 1)))(x)
        x = L.Conv2D(8, 3, strides=2, use_bias=False)(x)
        return L.Activation("relu")(L.BatchNormalization()(x))

    x = np.random.default_rng(1).normal(size=(1, size, size, 3)).astype("float32")
    check(functional(build, (size, size, 3)), x, fused=["FusedConv2D"])


def test_a_convolution_of_many_channels_stays():
    def build(x):
        x = L.ZeroPadding2D(((0, 1), (0, 1)))(x)
        x = L.Conv2D(8, 3, strides=2, use_bias=False)(x)
        return L.Activation("relu")(L.BatchNormalization()(x))

    x = np.random.default_rng(1).normal(size=(1, 12, 12, 120)).astype("float32")
    check(functional(build, (12, 12, 120)), x, fused=["Conv2D"])
    # Of an odd size the padding is not what Keras' "same" would be.
    check(functional(build, (11, 11, 120)), x[:, 1:, 1:], fused=["ZeroPadding2D", "Conv2D"])


@pytest.mark.parametrize("conv", ["dense", "pointwise", "depthwise", "separable", "full", "same"])
def test_normalisation_before_a_convolution(conv):
    make = {
        "dense": lambda: L.Dense(5),
        "pointwise": lambda: L.Conv2D(5, 1),
        "depthwise": lambda: L.DepthwiseConv2D(3, depth_multiplier=2),
        "separable": lambda: L.SeparableConv2D(5, 3, depth_multiplier=2),
        "full": lambda: L.Conv2D(5, 3),
        "same": lambda: L.Conv2D(5, 3, padding="same"),
    }[conv]
    model = functional(lambda x: make()(L.BatchNormalization()(L.MaxPooling2D(2)(x))))
    optimized, record = check(model)
    assert ("BatchNormalization" in kinds(optimized)) == (conv == "same")
    if conv == "same":  # the zeros around its input are not normalised
        (change,) = [c for c in record if c.kind == "BatchNormalization"]
        assert "no convolution" in change.note


@pytest.mark.parametrize(
    "make",
    [
        lambda: L.Conv2D(6, 3, groups=2),
        lambda: L.Conv2D(16, 3, groups=8),
        lambda: L.DepthwiseConv2D(3, depth_multiplier=3, strides=2),
        lambda: layers.DepthwiseConv2D(3, strides=(2, 1), padding=((1, 0), (2, 1))),
        lambda: layers.SeparableConv2D(5, 3, dilation_rate=2, activation="relu6"),
        lambda: L.Conv2D(5, 1, activation="tanh"),
        lambda: L.Dense(7),
    ],
)
def test_normalisation_after_a_convolution(make):
    model = functional(lambda x: L.BatchNormalization(scale=False)(make()(x)))
    optimized, _ = check(model)
    convolution = model.layers[1]
    plain = convolution.activation is keras.activations.linear
    assert ("BatchNormalization" in kinds(optimized)) != plain


def test_one_dimension_and_dense():
    inputs = keras.Input((20, 6))
    x = L.BatchNormalization()(L.Conv1D(8, 3, padding="causal", use_bias=False)(inputs))
    x = L.BatchNormalization()(L.DepthwiseConv1D(3, depth_multiplier=2)(L.ReLU()(x)))
    x = L.BatchNormalization(center=False)(L.SeparableConv1D(5, 3, use_bias=False)(x))
    x = L.BatchNormalization()(L.Dense(7)(L.Flatten()(x)))
    x = np.random.default_rng(0).normal(size=(2, 20, 6)).astype("float32"), keras.Model(inputs, x)
    optimized, _ = check(x[1], x[0])
    assert "BatchNormalization" not in kinds(optimized)


def test_layers_that_are_called_twice_stay():
    shared = L.Conv2D(8, 1, name="shared")

    def build(x):
        return L.BatchNormalization()(shared(L.ReLU()(shared(x))))

    optimized, record = check(functional(build))
    assert kinds(optimized).count("Conv2D") == 1
    (note,) = [change.note for change in record if change.layer == "shared"]
    assert note == "it is called more than once"


@pytest.mark.parametrize("kind", ["conv", "norm", "relu", "pad", "dropout"])
def test_a_layer_that_was_given_a_call_of_its_own_stays(kind):
    made = {
        "pad": L.ZeroPadding2D(1, name="pad"),
        "conv": L.Conv2D(8, 3, name="conv"),
        "norm": L.BatchNormalization(name="norm"),
        "dropout": L.Dropout(0.5, name="dropout"),
        "relu": L.ReLU(name="relu"),
    }
    layer = made[kind]
    stock = layer.call
    layer.call = lambda x, **options: 2 * stock(x, **options) + 1
    model = functional(lambda x: keras.Sequential(list(made.values()))(x))
    _, record = check(model)
    (found,) = [change for change in record if change.layer.endswith(kind)]
    assert (found.done, found.note) == (False, "it was given a way of its own to compute")


def test_normalisation_before_a_biased_depthwise_step():
    """Whatever was merged first: a bias between the two steps is not scaled."""
    from sepconv.models.folding import Affine, lower

    rng = np.random.default_rng(0)
    steps = [layers.DepthwiseConv2D(3), layers.Conv2D(4, 1)]
    for step in steps:
        step.build((None, 12, 12, 8))
        step.set_weights([rng.normal(size=w.shape) for w in step.get_weights()])
    block, second = (lower(step, 4) for step in steps)
    block.append(second)
    x = rng.normal(size=(1, 5, 5, 8))
    affine = Affine(rng.uniform(0.5, 2, 8), rng.normal(size=8))

    def computed(x):
        return sepconv.fused_conv2d(
            x,
            block.depthwise,
            block.pointwise,
            depthwise_bias=block.depthwise_bias,
            bias=block.bias,
        )

    expected = computed(x * affine.scale + affine.shift)
    block.fold_before(affine)
    np.testing.assert_allclose(computed(x), expected, rtol=1e-10)


def test_what_two_layers_use_stays():
    def build(x):
        y = L.Conv2D(8, 1, name="conv")(x)
        return [L.BatchNormalization(name="bn")(y), L.ReLU(name="relu")(y)]

    optimized, record = check(functional(build))
    assert kinds(optimized) == ["FusedConv2D", "BatchNormalization", "ReLU"]
    assert {c.layer: c.note for c in record}["bn"] == "other layers use the result of 'conv' too"


def test_what_is_an_output_stays():
    def build(x):
        y = L.Conv2D(8, 1, name="features")(x)
        return {"features": y, "end": L.BatchNormalization()(y)}

    optimized, _ = check(functional(build))
    assert kinds(optimized) == ["FusedConv2D", "BatchNormalization"]
    assert set(optimized(X)) == {"features", "end"}


def test_a_residual_is_added_only_where_shapes_are_equal():
    def build(x):
        mean = L.GlobalAveragePooling2D(keepdims=True)(x)
        return L.Add()([L.Conv2D(8, 1)(x), mean])

    optimized, record = check(functional(build))
    assert "Add" in kinds(optimized)
    assert "different shapes" in record[-1].note


def test_sizes_that_are_not_known():
    def build(x):
        y = L.DepthwiseConv2D(3, padding="same")(L.ReLU()(L.Conv2D(8, 1)(x)))
        one = L.Add()([x, L.Conv2D(8, 1)(y)])
        return L.Add()([one, L.Conv2D(8, 1)(L.Conv2DTranspose(8, 3, padding="same")(one))])

    optimized, record = check(functional(build, (None, None, 8)))
    assert kinds(optimized).count("Add") == 1  # through a layer of Keras' nobody follows the size
    assert "different shapes" in record[-1].note


def test_a_sequential_model_and_models_in_a_model():
    block = keras.Sequential(
        [
            keras.Input((12, 12, 8)),
            L.DepthwiseConv2D(3, padding="same", name="conv"),
            L.BatchNormalization(),
            L.Dropout(0.5),
        ],
        name="block",
    )
    head = functional(lambda x: L.Add()([L.Conv2D(8, 1, name="conv")(x), x]))
    model = keras.Sequential(
        [keras.Input((12, 12, 8)), block, L.ReLU(), head, L.GlobalAveragePooling2D(), L.Dense(3)]
    )
    optimized, record = check(model)
    assert kinds(optimized) == ["FusedConv2D", "FusedConv2D", "GlobalAveragePooling2D", "Dense"]
    assert {"block/conv", "net/conv"} <= {change.layer for change in record}


def test_a_nested_model_called_for_inference_is_dissolved():
    base = functional(lambda x: L.BatchNormalization()(L.Conv2D(8, 1)(x)))
    model = functional(lambda x: L.Dense(3)(L.GlobalAveragePooling2D()(base(x, training=False))))
    optimized, _ = check(model)
    assert kinds(optimized) == ["FusedConv2D", "GlobalAveragePooling2D", "Dense"]


def test_dropout_that_is_on_at_inference_stays():
    model = functional(lambda x: L.Conv2D(4, 1)(L.Dropout(0.5, name="mc")(x, training=True)))
    optimized, record = sepconv.optimize(model)
    assert "Dropout" in kinds(optimized)
    assert {c.layer: c.done for c in record}["mc"] is False


def test_two_inputs_and_a_layer_of_ones_own():
    class Twice(L.Layer):  # its config is not what its constructor takes
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, x):
            return self.factor * x

    a, b = keras.Input((12, 12, 8), name="a"), keras.Input((12, 12, 8), name="b")
    y = L.Add()([L.BatchNormalization()(L.Conv2D(8, 1)(a)), Twice(2.0)(b)])
    model = keras.Model({"a": a, "b": b}, y)
    optimized, record = check(model, {"a": X, "b": 2 * X})
    assert set(optimized.input) == {"a", "b"}
    assert [(change.done, change.note) for change in record if change.kind == "Twice"] == [
        (False, "")
    ]
    mine, theirs = ([x for x in m.layers if type(x) is Twice] for m in (model, optimized))
    assert mine[0] is not theirs[0]
    assert theirs[0].factor == 2.0


def test_channels_first(engine):
    if engine == "tensorflow":
        pytest.skip("TensorFlow's own layers have no channels_first on a CPU")
    first = {"data_format": "channels_first"}

    def build(x):
        y = L.ZeroPadding2D(1, **first)(x)
        y = L.DepthwiseConv2D(3, use_bias=False, **first)(y)
        y = L.ReLU()(L.BatchNormalization(axis=1)(y))
        y = L.BatchNormalization(axis=1)(L.Conv2D(8, 1, use_bias=False, **first)(y))
        return L.Add()([y, x])

    x = np.ascontiguousarray(X.transpose(0, 3, 1, 2))
    check(functional(build, (8, 12, 12)), x, fused=["FusedConv2D"])
    # Normalisation along another axis than the channels is no part of a convolution.
    model = functional(
        lambda x: L.BatchNormalization(axis=-1)(L.Conv2D(4, 1, **first)(x)), (8, 12, 12)
    )
    _, record = check(model, x)
    assert "its axis" in record[-1].note


def test_keras_operations_as_activations():
    def build(x):
        y = keras.ops.relu6(L.DepthwiseConv2D(3, padding="same")(x))
        return keras.activations.relu(keras.ops.add(L.Conv2D(8, 1)(y), x))

    check(functional(build), fused=["FusedConv2D"])


def test_save_and_load(tmp_path):
    model = randomised(keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None, classes=10))
    optimized, _ = sepconv.optimize(model)
    x = np.random.default_rng(1).uniform(-1, 1, (1, 96, 96, 3)).astype("float32")
    (expected,) = predictions(model, x)
    assert kinds(optimized).count("FusedConv2D") == 35
    assert len(optimized.layers) == 38
    path = tmp_path / "optimized.keras"
    optimized.save(path)
    loaded = keras.models.load_model(path)
    assert np.abs(predictions(loaded, x)[0] - expected).max() <= 1e-4 * expected.max()
    for a, b in zip(optimized.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    again, record = sepconv.optimize(loaded)  # nothing is left to do
    assert record.changed == 0
    assert len(again.layers) == 38


def test_mixed_precision():
    policy = keras.DTypePolicy("mixed_bfloat16")
    inputs = keras.Input((12, 12, 8))
    y = L.BatchNormalization(dtype=policy)(L.Conv2D(8, 1, dtype=policy)(inputs))
    optimized, _ = sepconv.optimize(randomised(keras.Model(inputs, y)))
    assert optimized.layers[-1].compute_dtype == "bfloat16"
    assert optimized.layers[-1].variable_dtype == "bfloat16"
    assert "bfloat16" in str(optimized(X).dtype)
    apart = L.BatchNormalization()(L.Conv2D(8, 1, dtype=policy)(inputs))
    _, record = sepconv.optimize(keras.Model(inputs, apart))
    assert "another dtype" in record[-1].note


def test_what_cannot_be_optimized():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match="Sequential or Functional"):
        sepconv.optimize(Own())
    with pytest.raises(TypeError, match="Received: model=3"):
        sepconv.optimize(3)
    with pytest.raises(ValueError, match="must be built"):
        sepconv.optimize(keras.Sequential([L.Dense(3)]))


def test_the_layer_trains(engine):
    inputs = keras.Input((12, 12, 8))
    y = layers.FusedConv2D(8, 3, padding="same", depthwise_activation="silu")(inputs, inputs)
    model = keras.Model(inputs, layers.FusedConv2D(2, activation="sigmoid")(y))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    target = np.random.default_rng(2).uniform(size=(2, 12, 12, 2)).astype("float32")
    losses = [float(model.train_on_batch(X, target)) for _ in range(4)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "At least one of filters and kernel_size"),
        ({"filters": 3, "depthwise_activation": "relu"}, "that a 1x1 convolution follows"),
        ({"kernel_size": 3, "filters": 3, "depthwise_activation": "elu"}, "must be None"),
        ({"filters": 3, "strides": 0}, "strides must be positive"),
    ],
)
def test_the_layers_errors(options, message):
    with pytest.raises(ValueError, match=message):
        layers.FusedConv2D(**options)


def test_a_record_is_one_line_a_layer():
    _, record = sepconv.optimize(functional(lambda x: L.Conv2D(8, 1, name="c")(x)))
    assert isinstance(record, Record)
    assert [change.layer for change in record] == ["c"]


@since("3.15", "the right shape of a lookup's one-hot result")
@pytest.mark.parametrize(
    "between",
    [(), (keras.layers.Dropout(0.5), keras.layers.Permute((1, 2)))],
    ids=["next", "later"],
)
def test_a_model_within_that_casts_its_input(between):
    """Keras says float of what a lookup makes integers, and the model within casts them."""
    pytest.importorskip("tensorflow", reason="Keras' lookups compute with it on every engine")
    inner = keras.Sequential(
        [keras.Input((4, 5)), keras.layers.Conv1D(3, 1, bias_initializer="normal")], name="inner"
    )
    tokens = keras.Input((4,), dtype="int32")
    y = keras.layers.IntegerLookup(vocabulary=[3, 5, 7, 9], output_mode="one_hot")(tokens)
    for layer in between:
        y = layer(y)
    model = keras.Model(tokens, inner(y))
    x = np.array([[3, 5, 7, 9], [1, 9, 3, 3]], "int32")
    served, record = sepconv.optimize(model, verify=x)
    assert record.verification.startswith("verified")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(served.predict(x, verbose=0), expected, atol=1e-5)


def test_a_model_within_that_is_called_with_a_mask_and_without():
    """It stays one model, since its steps alone would not say what the mask does."""
    x = keras.Input((4, 3))
    inner = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(3)], name="inner")
    mask = keras.Input((4,), dtype="bool")
    model = keras.Model([x, mask], keras.layers.Add()([inner(x, mask=mask), inner(x)]))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((2, 4, 3)).astype("float32"), np.array(2 * [[1, 1, 0, 0]], bool)]
    served, _ = sepconv.optimize(model, verify=inputs)
    assert sum(layer.name == "inner" for layer in served.layers) == 1
    expected = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(served.predict(inputs, verbose=0), expected, atol=1e-5)


def test_a_model_within_whose_calls_change_their_order():
    """Steps on the longer way to the outputs are computed first, whatever the model did."""
    x = keras.Input((4, 2))
    shared = keras.layers.Dense(2, "tanh", name="shared")
    inner = keras.Sequential([keras.Input((4, 2)), shared], name="inner")
    deep = keras.Sequential([keras.Input((4, 2)), *(keras.layers.ReLU(6.0 + i) for i in range(5))])
    short = keras.layers.Dense(2, "relu")(keras.layers.Dense(2, "tanh")(inner(x)))
    model = keras.Model(x, [short, deep(inner(2.0 * x))])
    served, record = sepconv.optimize(model)
    assert record.verification.startswith("verified")
    inputs = np.random.default_rng(0).standard_normal((3, 4, 2)).astype("float32")
    for a, b in zip(
        served.predict(inputs, verbose=0), model.predict(inputs, verbose=0), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
