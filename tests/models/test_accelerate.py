"""`accelerate` replaces the layers that it should, and nothing else changes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.networks import (
    Subclassed,
    assert_near,
    functional,
    inputs,
    numbers,
    randomize,
    sequential,
    subclassed,
)
from keras import layers

import sepconv
from sepconv.models.copying import named_layers

MAKERS = (sequential, functional, subclassed)


@pytest.mark.parametrize("make", MAKERS)
def test_outputs_names_and_weights_are_the_same(make):
    stock = randomize(make())
    x = inputs(stock)
    expected = stock.predict(x, verbose=0)
    model, record = sepconv.accelerate(stock)
    assert record.changed >= 2
    assert type(model) is type(stock)
    assert model.name == stock.name
    assert_near(model.predict(x, verbose=0), expected)
    for (name, old), (new_name, new) in zip(named_layers(stock), named_layers(model), strict=True):
        assert name == new_name
        assert new is not old
        assert new.trainable == old.trainable
        if type(old) is not type(new):
            assert type(new) is getattr(sepconv.layers, type(old).__name__)
    for old, new in zip(stock.weights, model.weights, strict=True):
        assert new is not old
        assert (new.name, new.trainable) == (old.name, old.trainable)
        np.testing.assert_array_equal(new.numpy(), old.numpy())


def test_the_record_says_what_was_done_and_why_not():
    keras.backend.clear_session()  # counts functions' names
    _, record = sepconv.accelerate(functional())
    assert {(c.layer, c.kind, c.done) for c in record} == {
        ("encoder/inner", "SeparableConv2D", True),
        ("shared", "DepthwiseConv2D", True),
        ("frozen", "DepthwiseConv2D", True),
        ("rows/row", "DepthwiseConv1D", True),
        ("depthwise_conv", "DepthwiseConv", False),
    }
    assert "patch_keras" in next(c for c in record if not c.done).note


def test_what_is_left_alone():
    class Doubled(layers.DepthwiseConv2D):
        def call(self, inputs):
            return 2 * super().call(inputs)

    stock = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            Doubled(3, name="doubled"),
            sepconv.layers.DepthwiseConv2D(3, name="ours"),
            layers.DepthwiseConv2D(3, name="stock"),
        ]
    )
    model, record = sepconv.accelerate(stock)
    done = {c.layer: (c.done, c.note) for c in record}
    assert done == {
        "doubled": (False, "a class of its own, which may compute something else"),
        "ours": (False, "sepconv's already"),
        "stock": (True, "sepconv.layers.DepthwiseConv2D"),
    }
    assert type(model.layers[0]) is Doubled
    assert_near(model(inputs(stock)), stock(inputs(stock)))


def test_ordinary_convolutions_where_we_compute_them(engine):
    stock = randomize(
        keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(8, (1, 5), padding="same", name="temporal"),
                layers.Conv2D(16, 1, name="mix"),
                layers.Conv2D(8, 3, padding="same", name="dense"),
                layers.Conv2D(8, 3, groups=8, name="grouped"),
            ]
        )
    )
    model, record = sepconv.accelerate(stock)
    done = {c.layer: (c.done, c.note) for c in record}
    ours = True, "sepconv.layers.Conv2D"
    assert done["temporal"] == done["grouped"] == ours
    note = "an ordinary convolution, neither a depthwise nor a 1x1 one"
    assert done["dense"] == (False, note)
    mix = False, "a 1x1 convolution, which tensorflow computes as fast in channels_last"
    assert done["mix"] == (mix if engine == "tensorflow" else ours)
    for old, new in zip(stock.layers, model.layers, strict=True):
        kit = sepconv.layers if done[old.name][0] else layers
        assert type(new) is kit.Conv2D
    x = numbers(2, 8, 8, 1)
    assert_near(model(x), stock(x))
    back = sepconv.to_stock(model)
    assert all(type(layer) is layers.Conv2D for layer in back.layers)
    assert_near(back(x), stock(x))
    late = keras.Sequential([layers.Conv2D(4, 3, name="late")])
    assert "not built" in sepconv.accelerate(late).record[0].note


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_types_are_ours_as_float32_is(policy, engine):
    stock = randomize(
        keras.Sequential(
            [
                keras.Input((8, 8, 8)),
                layers.DepthwiseConv2D(3, name="depthwise", dtype=policy),
                layers.Conv2D(16, 1, name="mix", dtype=policy),
                layers.BatchNormalization(name="norm", dtype=policy),
            ]
        )
    )
    model, record = sepconv.accelerate(stock)
    ours = {c.layer for c in record if c.done}
    assert ("mix" in ours) == (engine in ("jax", "torch"))
    assert ("norm" in ours) == (engine != "numpy")
    assert "depthwise" in ours
    x = numbers(2, 8, 8, 8)
    assert keras.backend.standardize_dtype(model(x).dtype) == policy.removeprefix("mixed_")
    found, expected = (keras.ops.cast(f(x), "float32") for f in (model, stock))
    assert_near(found, expected, 2e-2)


def test_the_model_stays_as_it_was():
    stock = functional()
    kinds = [type(layer) for _, layer in named_layers(stock)]
    outputs = stock.get_layer("pooled").output
    model, _ = sepconv.accelerate(stock)
    randomize(model, seed=7)
    assert [type(layer) for _, layer in named_layers(stock)] == kinds
    assert stock.get_layer("pooled").output is outputs  # still called once
    assert all(c.layer for c in sepconv.accelerate(stock).record)


def test_shared_layers_stay_shared():
    stock = functional()
    model, _ = sepconv.accelerate(stock)
    for name in ("shared", "encoder"):
        assert len(model.get_layer(name)._inbound_nodes) == 2
    assert len(model.weights) == len(stock.weights)


def own_loss(y, y_pred):
    return keras.ops.mean(keras.ops.square(y - y_pred), axis=-1)


def test_training_goes_on_where_the_model_is():
    """The optimizer's moments, the dropout's random state, metrics and frozen layers included."""
    stock = sequential()
    stock.layers[1].trainable = False
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5))
    stock.compile(optimizer, own_loss, metrics=["mae", keras.metrics.MeanSquaredError("mine")])
    x, y = numbers(8, 8, 8, 3), numbers(8, 3, seed=2)
    for _ in range(3):
        stock.train_on_batch(x, y)
    model, _ = sepconv.accelerate(stock)
    assert model.optimizer is not optimizer
    assert int(model.optimizer.iterations) == 3
    for _ in range(3):
        expected, received = (m.train_on_batch(x, y, return_dict=True) for m in (stock, model))
        assert received.keys() == expected.keys() >= {"mine"}
        for name, value in received.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-4)


def test_a_model_that_is_not_compiled_or_not_built():
    model, record = sepconv.accelerate(
        keras.Sequential([layers.DepthwiseConv2D(3, name="depthwise"), layers.Flatten()])
    )
    assert (model.compiled, model.built, record.changed) == (False, False, 1)
    assert model(numbers(1, 8, 8, 3)).shape == (1, 108)
    assert type(model.layers[0]) is sepconv.layers.DepthwiseConv2D


def test_the_result_saves_and_loads(tmp_path):
    stock = randomize(sequential())
    model, _ = sepconv.accelerate(stock)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0]) is sepconv.layers.SeparableConv2D
    assert_near(loaded(inputs(stock)), stock(inputs(stock)))


def test_a_compile_of_its_own_is_left_to_its_owner():
    class Own(Subclassed):
        def compile(self, weight):
            super().compile("sgd", "mse")

    stock = Own(4)
    stock(numbers(1, 8, 8, 3))
    stock.compile(weight=2)
    with pytest.warns(UserWarning, match="Own has a compile"):
        model, _ = sepconv.accelerate(stock)
    assert not model.compiled


def test_a_class_with_a_training_step_of_its_own():
    """Made of layers as any functional or sequential model is, with no constructor of its own."""

    class Stepped(keras.Model):
        steps = 0

        def train_step(self, *args):
            type(self).steps += 1
            return super().train_step(*args)

    class Line(keras.Sequential):
        pass

    inside = Line([keras.Input((8, 8, 3)), layers.DepthwiseConv2D(3, name="deep")], name="line")
    x = keras.Input((8, 8, 3), name="x")
    outputs = layers.Flatten()(inside(layers.SeparableConv2D(3, 3, padding="same")(x)))
    stock = Stepped({"x": x}, [outputs], name="stepped")
    stock.compile("sgd", "mse", run_eagerly=True)
    model, record = sepconv.accelerate(stock)
    assert record.changed == 2
    assert (type(model), type(model.get_layer("line"))) == (Stepped, Line)
    assert type(model.get_layer("line").layers[0]) is sepconv.layers.DepthwiseConv2D
    data = {"x": numbers(4, 8, 8, 3)}
    assert_near(model(data), stock(data))
    before = Stepped.steps
    model.train_on_batch(data, numbers(4, 108))
    assert Stepped.steps == before + 1


class Closed(keras.Model):
    """It holds something that nobody can copy, and no config makes it."""

    def __init__(self, lines):
        super().__init__()
        self.conv = layers.DepthwiseConv2D(3)
        self.lines = lines

    def call(self, x):
        return self.conv(x)


def test_what_cannot_be_copied():
    closed = Closed(line for line in ("a generator",))
    with pytest.raises(ValueError, match=r"'closed', a Closed, cannot be copied.*patch_keras"):
        sepconv.accelerate(closed)
    with pytest.raises(ValueError, match=r"Closed has no get_config .*'lines'"):
        sepconv.accelerate(closed)
    with pytest.raises(TypeError, match=r"model must be a keras.Model. Received: 3"):
        sepconv.accelerate(3)


def test_models_that_no_config_makes():
    class Parametrised(keras.Model):
        def __init__(self, conv, factor):
            super().__init__()
            self.conv, self.factor = conv, factor

        def call(self, x):
            return self.factor * self.conv(x)

        def get_config(self):
            raise NotImplementedError("no config")

    stock = Parametrised(layers.DepthwiseConv2D(3), 2)
    x = numbers(1, 8, 8, 3)
    expected = stock(x)
    model, record = sepconv.accelerate(stock)
    assert record.changed == 1
    assert model.factor == 2
    assert_near(model(x), expected)
    changed = sequential()
    dropout = next(layer for layer in changed.layers if isinstance(layer, layers.Dropout))
    dropout.rate = 0.0  # made anew, it would need no random numbers
    assert sepconv.accelerate(changed).model.get_layer(dropout.name).rate == 0.0
