"""What a layer promises apart from its values: arguments, config, shapes, dtypes, errors."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from sepconv import layers

NAMES = ["SeparableConv2D", "DepthwiseConv2D", "SeparableConv1D", "DepthwiseConv1D"]


def make(name, **arguments):
    """A layer with kernels of size 3 and, where it has them, 5 filters."""
    if name.startswith("Separable"):
        arguments.setdefault("filters", 5)
    arguments.setdefault("kernel_size", 3)
    return getattr(layers, name)(**arguments)


def image(name, size=9, channels=4, batch=2):
    """An input in channels_last."""
    shape = (batch, *[size] * int(name[-2]), channels)
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def explicit(name):
    return ((1, 2), (0, 3)) if name.endswith("2D") else (2, 1)


def none(name):
    return ((0, 0), (0, 0)) if name.endswith("2D") else (0, 0)


def everything(name):
    """Every argument with a value other than its default."""
    rank = int(name[-2])
    arguments = {
        "kernel_size": (2, 4)[:rank],
        "strides": (2, 3)[:rank],
        "padding": explicit(name),
        "depth_multiplier": 2,
        "data_format": "channels_first",
        "dilation_rate": (3, 2)[:rank],
        "activation": "gelu",
        "use_bias": False,
        "depthwise_initializer": keras.initializers.HeNormal(seed=3),
        "bias_initializer": "ones",
        "depthwise_regularizer": keras.regularizers.L1(0.02),
        "bias_regularizer": "l2",
        "activity_regularizer": "l2",  # "l1" fails in bfloat16 with older versions of Keras
        "depthwise_constraint": keras.constraints.MaxNorm(0.7),
        "bias_constraint": "non_neg",
        "name": "a_name",
        "trainable": False,
        "dtype": "mixed_bfloat16",
    }
    if name.startswith("Separable"):
        arguments |= {
            "filters": 7,
            "pointwise_initializer": "he_uniform",
            "pointwise_regularizer": "l1l2",
            "pointwise_constraint": "unit_norm",
        }
    return arguments


@pytest.mark.parametrize("name", NAMES)
def test_signature_is_keras_own(name):
    ours, stock = (inspect.signature(getattr(kit, name)) for kit in (layers, keras.layers))
    assert list(ours.parameters) == list(stock.parameters)
    for parameter in stock.parameters.values():
        assert ours.parameters[parameter.name].default == parameter.default
    assert issubclass(getattr(layers, name), getattr(keras.layers, name))


@pytest.mark.parametrize("name", NAMES)
def test_config_round_trip_of_every_argument(name):
    arguments = everything(name)
    known = set(inspect.signature(getattr(layers, name)).parameters) - {"kwargs"}
    assert known | {"name", "trainable", "dtype"} == set(arguments)
    layer = getattr(layers, name)(**arguments)
    config = layer.get_config()
    for key in ("kernel_size", "strides", "padding", "dilation_rate", "data_format"):
        assert config[key] == arguments[key], key
    for again in (
        type(layer).from_config(config),
        keras.layers.deserialize(json.loads(json.dumps(keras.layers.serialize(layer)))),
    ):
        assert type(again) is type(layer)
        assert again.get_config() == config
    x = image(name).swapaxes(1, -1)
    y = layer(x)
    assert tuple(y.shape) == layer.compute_output_shape(x.shape)
    assert not layer.trainable_variables
    assert len(layer.weights) == len(layer._kernels())


@pytest.mark.parametrize("name", NAMES)
def test_config_is_keras_own(name):
    stock = getattr(keras.layers, name)(
        **({"filters": 5} if name.startswith("Separable") else {}), kernel_size=3, name="conv"
    )
    assert make(name).get_config() | {"name": "conv"} == stock.get_config()


@pytest.mark.parametrize("name", NAMES)
def test_regularizers_add_to_the_loss(name):
    layer = make(
        name,
        depthwise_regularizer=keras.regularizers.L2(0.3),
        bias_regularizer=keras.regularizers.L1(0.2),
        bias_initializer="random_normal",
        **({"pointwise_regularizer": "l2"} if name.startswith("Separable") else {}),
    )
    layer(image(name))
    weights = layer.get_weights()
    expected = 0.3 * np.sum(weights[0] ** 2) + 0.2 * np.sum(np.abs(weights[-1]))
    if name.startswith("Separable"):
        expected += 0.01 * np.sum(weights[1] ** 2)
    assert float(ops.convert_to_numpy(sum(layer.losses))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_activity_regularizer_adds_to_the_loss(name):
    layer = make(name, activity_regularizer=keras.regularizers.L1(0.1), activation="relu")
    stock = getattr(keras.layers, name).from_config(layer.get_config())
    for one in (layer, stock):
        one.build(image(name).shape)
    stock.set_weights(layer.get_weights())
    losses = []
    for one in (layer, stock):
        y = ops.convert_to_numpy(one(image(name)))
        (loss,) = one.losses
        losses.append(float(ops.convert_to_numpy(loss)))
    assert np.abs(y).sum() > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # versions of Keras differ in the value


@pytest.mark.parametrize("name", NAMES)
def test_constraints_hold_after_a_step(name, trains):
    constraints = {"depthwise_constraint": "non_neg", "bias_constraint": "non_neg"}
    if name.startswith("Separable"):
        constraints["pointwise_constraint"] = "non_neg"
    layer = make(name, **constraints)
    x = image(name)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, keras.layers.Flatten()])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.train_on_batch(x, -10 * np.ones((2, model.output_shape[-1]), "float32"))
    for weight in layer.get_weights():
        assert weight.min() >= 0
        assert np.any(weight == 0)


@pytest.mark.parametrize("name", NAMES)
def test_initializers_are_used(name):
    layer = make(
        name, depthwise_initializer="ones", bias_initializer=keras.initializers.Constant(2)
    )
    layer.build(image(name).shape)
    weights = layer.get_weights()
    assert np.all(weights[0] == 1)
    assert np.all(weights[-1] == 2)
    assert [w.name for w in layer.weights] == (
        ["depthwise_kernel", "pointwise_kernel", "bias"]
        if name.startswith("Separable")
        else ["kernel", "bias"]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("activation", [None, "linear", "relu", "relu6", "softmax", "leaky_relu"])
def test_activation(name, activation):
    x = 4 * image(name)
    plain = make(name)
    layer = make(name, activation=activation)
    plain.build(x.shape)
    layer.build(x.shape)
    layer.set_weights(plain.get_weights())
    expected = keras.activations.get(activation)(plain(x))
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x)), ops.convert_to_numpy(expected), rtol=1e-5, atol=1e-5
    )


def test_data_format_from_the_config_file(tmp_path):
    (tmp_path / "keras.json").write_text(
        json.dumps({"floatx": "float32", "image_data_format": "channels_first"})
    )
    code = """
import numpy as np
from sepconv import layers
for layer, shape, output in (
    (layers.SeparableConv2D(5, 3), (1, 4, 8, 9), (1, 5, 6, 7)),
    (layers.DepthwiseConv2D(3), (1, 4, 8, 9), (1, 4, 6, 7)),
    (layers.SeparableConv1D(5, 3), (1, 4, 8), (1, 5, 6)),
    (layers.DepthwiseConv1D(3), (1, 4, 8), (1, 4, 6)),
):
    assert layer.data_format == "channels_first"
    assert tuple(layer(np.ones(shape, "float32")).shape) == output
"""
    env = dict(os.environ) | {"KERAS_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=120)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "policy", ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16"]
)
def test_dtype_policy(name, policy):
    layer = make(name, dtype=policy)
    y = layer(image(name))
    expected = keras.DTypePolicy(policy)
    assert keras.backend.standardize_dtype(y.dtype) == expected.compute_dtype
    assert all(w.dtype == expected.variable_dtype for w in layer.weights)
    assert type(layer).from_config(layer.get_config()).dtype_policy.name == policy
    assert make(name, dtype=expected).dtype_policy.name == policy


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("given", ["float16", "bfloat16", "float32"])
def test_inputs_are_cast_also_under_stateless_call(name, policy, given):
    layer = make(name, dtype=policy)
    x = ops.cast(ops.convert_to_tensor(image(name)), given)
    y = layer(x)
    weights = [v.value for v in layer.trainable_variables]
    stateless, _ = layer.stateless_call(weights, [], x)
    assert keras.backend.standardize_dtype(stateless.dtype) == layer.compute_dtype
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(ops.cast(a, "float32")) for a in (y, stateless))
    )


def test_stateless_call_uses_the_values_it_is_given(engine):
    layer = layers.SeparableConv2D(5, 3)
    x = image("SeparableConv2D")
    y = ops.convert_to_numpy(layer(x))
    doubled = [2 * v.value for v in layer.trainable_variables]
    stateless, _ = layer.stateless_call(doubled, [], x)
    np.testing.assert_allclose(ops.convert_to_numpy(stateless), 4 * y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integer_inputs_raise(name, dtype):
    layer = make(name)
    x = np.ones(image(name).shape, dtype)
    with pytest.raises(TypeError, match=f"floating dtype.*inputs.dtype={dtype}"):
        layer(x)
    with pytest.raises(TypeError, match="floating dtype"):
        make(name)(keras.Input(x.shape[1:], dtype=dtype))
    with pytest.raises(TypeError, match="floating dtype"):
        layer.stateless_call([v.value for v in layer.trainable_variables], [], x)


def test_masks_are_treated_as_stock_does():
    x = keras.layers.Masking()(ops.convert_to_tensor(image("SeparableConv1D")))
    for kit in (keras.layers, layers):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            y = kit.SeparableConv1D(5, 3)(x)
        assert any("does not support masking" in str(w.message) for w in caught)
        assert getattr(y, "_keras_mask", None) is None
        assert not kit.SeparableConv1D(5, 3).supports_masking


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["valid", "SAME", "explicit", "causal"])
def test_output_shapes(name, data_format, padding):
    if padding == "causal" and name.endswith("2D"):
        pytest.skip("causal is for one dimension")
    rank = int(name[-2])
    first = data_format == "channels_first"
    layer = make(
        name,
        padding=explicit(name) if padding == "explicit" else padding,
        strides=(2, 1)[:rank],
        dilation_rate=(1, 2)[:rank] if rank == 2 else 2,
        data_format=data_format,
        depth_multiplier=2,
    )
    x = image(name)
    x = np.moveaxis(x, -1, 1) if first else x
    y = layer(x)
    assert layer.compute_output_shape(x.shape) == tuple(y.shape)
    assert layer(keras.Input(batch_shape=x.shape)).shape == tuple(y.shape)

    channels = x.shape[1 if first else -1]
    space = (None,) * rank
    unknown = (None, channels, *space) if first else (None, *space, channels)
    outputs = y.shape[1 if first else -1]
    expected = (None, outputs, *space) if first else (None, *space, outputs)
    assert layer.compute_output_shape(unknown) == expected
    assert layer(keras.Input(batch_shape=unknown)).shape == expected


@pytest.mark.parametrize("name", NAMES)
def test_an_input_that_is_too_small_raises(name):
    layer = make(name, dilation_rate=2)
    layer(image(name))
    small = image(name, size=4)
    ours = "output would be empty"
    # Where Keras looks, it speaks; before 3.8 it does not look.
    keras_own = f"Computed output size would be zero or negative|{ours}"
    for call, message in (
        (lambda: layer(small), ours),
        (lambda: layer(keras.Input(small.shape[1:])), keras_own),
        (lambda: layer.compute_output_shape(small.shape), keras_own),
        (lambda: make(name, dilation_rate=2)(small), keras_own),
        (
            lambda: layer.stateless_call([v.value for v in layer.trainable_variables], [], small),
            ours,
        ),
        (lambda: make(name, dilation_rate=2, padding=none(name))(small), ours),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", NAMES)
def test_inputs_that_do_not_fit_raise(name):
    layer = make(name)
    x = image(name)
    layer(x)
    with pytest.raises(ValueError, match="expected axis -1"):
        layer(image(name, channels=3))
    for wrong in (x[0], x[None]):
        with pytest.raises(ValueError, match="ndim"):
            layer(wrong)
        with pytest.raises(ValueError, match="axes"):
            layer.compute_output_shape(wrong.shape)
    with pytest.raises(ValueError, match="number of channels"):
        make(name)(keras.Input((*[9] * layer._rank, None)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("kernel_size", 0, ValueError),
        ("kernel_size", -1, ValueError),
        ("kernel_size", 2.5, TypeError),
        ("kernel_size", (1, 2, 3), ValueError),
        ("kernel_size", 2**62, ValueError),
        ("strides", 0, ValueError),
        ("strides", "2", TypeError),
        ("strides", (1, 2, 3), ValueError),
        ("dilation_rate", 0, ValueError),
        ("dilation_rate", 1.5, TypeError),
        ("depth_multiplier", 0, ValueError),
        ("depth_multiplier", None, TypeError),
        ("depth_multiplier", (1, 2), ValueError),
        ("depth_multiplier", 2**62, ValueError),
        ("padding", "full", ValueError),
        ("padding", 1, ValueError),
        ("padding", ((1, 1), (1, 1), (1, 1)), ValueError),
        ("padding", (-1, 1), ValueError),
        ("data_format", "NHWC", ValueError),
        ("activation", "no_such", ValueError),
        ("groups", 2, ValueError),
    ],
)
def test_bad_arguments_raise(name, argument, value, error):
    with pytest.raises(error, match=argument if argument != "activation" else "no_such"):
        make(name, **{argument: value})


@pytest.mark.parametrize("name", ["SeparableConv2D", "SeparableConv1D"])
@pytest.mark.parametrize(
    ("filters", "error"), [(0, ValueError), ((2, 3), ValueError), (None, TypeError)]
)
def test_bad_filters_raise(name, filters, error):
    with pytest.raises(error, match="filters"):
        make(name, filters=filters)


def test_causal_is_for_one_dimension():
    with pytest.raises(ValueError, match="padding"):
        layers.SeparableConv2D(5, 3, padding="causal")


@pytest.mark.parametrize("name", ["SeparableConv1D", "DepthwiseConv1D"])
def test_causal_sees_no_later_input(name):
    layer = make(name, padding="causal", dilation_rate=2)
    x = image(name)
    later = x.copy()
    later[:, 5:] += 1
    before, after = (ops.convert_to_numpy(layer(a)) for a in (x, later))
    assert before.shape == (2, 9, before.shape[-1])
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.any(before[:, 5] != after[:, 5])


def test_numpy_integers_are_integers():
    layer = layers.SeparableConv2D(np.int64(5), np.int32(3), strides=[np.int64(2), 1])
    assert json.dumps(keras.layers.serialize(layer))
    assert layer.strides == (2, 1)


def test_backend_without_an_engine_raises(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(ValueError, match="openvino"):
        layers.DepthwiseConv2D(3)
