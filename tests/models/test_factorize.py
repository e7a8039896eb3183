"""sepconv.factorize on Keras' layers and models, on Keras' backend of the moment."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import sepconv
from sepconv import layers


def _pictures(count, size=10, channels=3, seed=0):
    """Smooth noise: neighbouring pixels resemble each other, as those of pictures do."""
    x = np.random.default_rng(seed).normal(size=(count, size, size, channels))
    for axis in (1, 2):
        x = x + np.roll(x, 1, axis) + np.roll(x, 2, axis)
    return (x / 3).astype("float32")


def _layer(channels=3, filters=8, kernel_size=3, *, biased=True, **options):
    keras.utils.set_random_seed(0)
    layer = keras.layers.Conv2D(filters, kernel_size, **options)
    first = layer.data_format == "channels_first"
    layer.build((None, channels, None, None) if first else (None, None, None, channels))
    if biased and layer.use_bias:
        layer.bias.assign(np.linspace(-1, 1, filters))
    return layer


@pytest.fixture
def model():
    """A layer called twice, nested models, one convolution that is grouped, one of 1x1."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 10, 3), name="picture")
    shared = keras.layers.Conv2D(12, 3, padding="same", activation="relu", name="shared")
    inner = keras.Sequential(
        [
            keras.Input((10, 10, 12)),
            keras.layers.Conv2D(12, (5, 3), padding="same", use_bias=False, name="tall"),
            keras.layers.BatchNormalization(name="norm"),
        ],
        name="inner",
    )
    x = keras.layers.Conv2D(12, 3, padding="same", activation="relu", name="first")(inputs)
    x = shared(inner(shared(x)))
    x = keras.layers.Conv2D(8, 3, groups=2, name="grouped")(x)
    x = keras.layers.Conv2D(16, 1, name="one")(x)
    x = keras.layers.Conv2D(16, 3, strides=2, name="last")(x)
    x = keras.layers.Dropout(0.1)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(4, name="dense")(x), name="net")
    model.compile(keras.optimizers.Adam(3e-3), "mse", metrics=["mae"])
    return model


def _predict(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


LAYERS = [
    *({"kernel_size": k, "padding": "same"} for k in (1, 2, 3, 4, 5, 6, 7)),
    {"kernel_size": (1, 5), "strides": (3, 2), "activation": "relu"},
    {"kernel_size": 3, "dilation_rate": (2, 1), "padding": "same", "activation": "gelu"},
    {"kernel_size": (3, 2), "strides": 2, "use_bias": False},
]


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_a_layer_at_full_rank_is_exact(options):
    layer = _layer(**options, name="mine")
    x = _pictures(2, 15)
    rank = min(int(np.prod(layer.kernel_size)), layer.filters)
    new, report = sepconv.factorize(layer, rank=rank)
    assert type(new) is layers.SeparableConv2D
    assert new.name == "mine"
    assert new.depth_multiplier == report[0].rank == report[0].full_rank == rank
    for name in ("strides", "dilation_rate", "padding", "use_bias", "activation"):
        assert getattr(new, name) == getattr(layer, name)
    np.testing.assert_allclose(_predict(new, x), _predict(layer, x), rtol=1e-5, atol=1e-5)
    more, _ = sepconv.factorize(layer, rank=rank + 5)
    assert more.depth_multiplier == rank


def test_channels_first_carries_over():
    last, first = _layer(), _layer(data_format="channels_first")
    first.set_weights(last.get_weights())
    x = _pictures(2)
    new, _ = sepconv.factorize(first, rank=8, data=x.transpose(0, 3, 1, 2))
    assert new.data_format == "channels_first"
    y = _predict(new, x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(y, _predict(last, x), rtol=1e-5, atol=1e-5)


def test_what_else_carries_over():
    layer = _layer(
        kernel_regularizer="l2", bias_constraint="non_neg", dtype="mixed_bfloat16", trainable=False
    )
    new, _ = sepconv.factorize(layer, rank=2)
    assert isinstance(new.depthwise_regularizer, keras.regularizers.L2)
    assert isinstance(new.pointwise_regularizer, keras.regularizers.L2)
    assert isinstance(new.bias_constraint, keras.constraints.NonNeg)
    assert new.dtype_policy.name == "mixed_bfloat16"
    assert not new.trainable


@pytest.mark.parametrize("use_bias", [True, False])
def test_data_lowers_the_error_of_the_output_also_on_pictures_held_out(use_bias):
    layer = _layer(6, 16, use_bias=use_bias)
    held = _pictures(20, channels=6, seed=1)
    plain, _ = sepconv.factorize(layer, rank=2)
    aware, report = sepconv.factorize(layer, rank=2, data=_pictures(40, channels=6))
    y = _predict(layer, held)
    errors = [np.linalg.norm(_predict(new, held) - y) for new in (aware, plain)]
    assert errors[0] < 0.8 * errors[1]
    assert report.data_aware
    assert report[0].error <= report[0].svd_error


def test_goals_of_a_layer():
    layer = _layer(4, 16, 3)
    for energy in (0.7, 1.0):
        _, report = sepconv.factorize(layer, energy=energy)
        row = report[0]
        assert 1 - row.error**2 >= energy - 1e-9
        if row.rank > 1:
            _, less = sepconv.factorize(layer, rank=row.rank - 1)
            assert 1 - less[0].error ** 2 < energy
    _, report = sepconv.factorize(layer, max_error=0.3)
    assert 0 < report[0].error <= 0.3
    assert report[0].rank == sepconv.factorize(layer, energy=1 - 0.3**2).report[0].rank
    x = _pictures(2, channels=4)
    _, report = sepconv.factorize(layer, flops=0.5, data=x)
    before, after = report.multiply_adds
    assert before == 8 * 8 * 9 * 4 * 16
    assert after == 8 * 8 * 4 * report[0].rank * (9 + 16) <= before / 2
    new, report = sepconv.factorize(layer, parameters=400)
    assert new.count_params() == report.parameters[1] == 3 * 4 * (9 + 16) + 16


def _cost(model, x):
    """Multiply-adds of one picture, from the shapes alone, for the model of these tests."""
    pixels = {"first": 100, "shared": 200, "inner/tall": 100, "grouped": 64, "one": 64, "last": 9}
    total = 0
    for path, number in pixels.items():
        layer = model
        for name in path.split("/"):
            layer = layer.get_layer(name)
        total += number * sum(int(np.prod(w.shape)) for w in layer.weights if len(w.shape) == 4)
    return total + 16 * 4


@pytest.mark.parametrize(("goal", "fraction"), [("flops", 0.35), ("parameters", 0.6)])
def test_a_budget_is_met(model, goal, fraction):
    x = _pictures(30)
    smaller, report = sepconv.factorize(model, **{goal: fraction}, data=x)
    assert report.parameters == (model.count_params(), smaller.count_params())
    assert report.multiply_adds == (_cost(model, x), _cost(smaller, x))
    before, after = report.multiply_adds if goal == "flops" else report.parameters
    assert 0.6 * fraction * before < after <= fraction * before
    # An absolute number says the same.
    again = sepconv.factorize(model, **{goal: int(fraction * before)}, data=x).report
    assert [row.rank for row in again] == [row.rank for row in report]


def test_a_model_keeps_what_it_must(model):
    state = [np.array(w) for w in model.get_weights()]
    smaller, report = sepconv.factorize(model, rank=2)
    rows = {row.layer: row for row in report}
    assert list(rows) == ["first", "shared", "inner/tall", "grouped", "one", "last"]
    assert [row.rank for row in report] == [2, 2, 2, None, None, 2]
    assert "grouped" in rows["grouped"].note
    assert "no cheaper" in rows["one"].note
    # Names, structure and sharing stay; the given model is as it was.
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    assert smaller.name == "net"
    assert type(smaller.get_layer("inner").get_layer("tall")) is layers.SeparableConv2D
    assert type(smaller.get_layer("grouped")) is keras.layers.Conv2D
    assert len(smaller.get_layer("shared")._inbound_nodes) == 2
    assert all(np.array_equal(a, b) for a, b in zip(state, model.get_weights(), strict=True))
    assert type(model.get_layer("first")) is keras.layers.Conv2D
    assert "call" not in vars(model.get_layer("first"))


def test_our_ordinary_convolution_is_factorized_too():
    stock, ours = _layer(4), layers.Conv2D(8, 3)
    ours.build((None, None, None, 4))
    ours.set_weights(stock.get_weights())
    (theirs, _), (separable, _) = (sepconv.factorize(layer, rank=3) for layer in (stock, ours))
    assert type(separable) is layers.SeparableConv2D
    for a, b in zip(separable.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_that_need_too_high_a_rank_stay(model):
    x = _pictures(4)
    same, report = sepconv.factorize(model, max_error=0.0)
    assert report.changed == 0
    assert report.parameters[0] == report.parameters[1]
    np.testing.assert_array_equal(_predict(same, x), _predict(model, x))
    assert "above 5" in report[0].note


def test_errors_of_the_report_are_those_of_the_layers(model):
    x = _pictures(60)
    _, report = sepconv.factorize(model, max_error=0.4, data=x)
    assert report.changed >= 3
    for row in report:
        assert row.error <= 0.4
        assert row.error <= row.svd_error


def test_data_lowers_the_error_of_a_model(model):
    x, held = _pictures(60), _pictures(20, seed=1)
    y = _predict(model, held)
    plain, aware = (sepconv.factorize(model, rank=2, data=data).model for data in (None, x))
    lost = [np.linalg.norm(_predict(new, held) - y) for new in (aware, plain)]
    assert lost[0] < 0.7 * lost[1]


def test_it_saves_and_loads(model, tmp_path):
    smaller, _ = sepconv.factorize(model, flops=0.5, data=_pictures(20))
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    x = _pictures(3, seed=2)
    np.testing.assert_allclose(_predict(loaded, x), _predict(smaller, x), rtol=1e-6, atol=1e-6)
    assert isinstance(loaded.get_layer("last"), layers.SeparableConv2D)


def test_it_trains_on_and_the_given_model_too():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "mse", metrics=["mae"])
    x = _pictures(64, 8)
    y = _predict(model, x)
    smaller, report = sepconv.factorize(model, rank=1)
    assert report.changed == 2
    before = smaller.evaluate(x, y, verbose=0)[0]
    smaller.fit(x, y, batch_size=16, epochs=10, verbose=0)
    assert smaller.evaluate(x, y, verbose=0)[0] < 0.8 * before
    # Each has arrays of its own: an engine that gives them away while training takes no others.
    np.testing.assert_allclose(_predict(model, x), y, rtol=1e-4, atol=1e-5)
    model.fit(x, y, batch_size=16, verbose=0)
    assert np.isfinite(_predict(smaller, x)).all()


def test_class_and_compilation_stay():
    class Stepped(keras.Model):
        counted = 0

        def compute_loss(self, *args, **kwargs):
            type(self).counted += 1
            return super().compute_loss(*args, **kwargs)

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, name="conv", trainable=False)(inputs)
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    model = Stepped(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.5), "mse", run_eagerly=True)
    x, y = _pictures(4, 8), np.ones((4, 2), "float32")
    model.train_on_batch(x, y)
    smaller, report = sepconv.factorize(model, rank=1)
    assert report.changed == 1
    assert type(smaller) is Stepped
    assert smaller.run_eagerly
    before = Stepped.counted
    smaller.evaluate(x, y, verbose=0)
    assert Stepped.counted > before
    # No kernel that the optimizer knows was replaced: it goes on. Else it starts anew.
    assert int(smaller.optimizer.iterations) == 1
    for old, new in zip(model.optimizer.variables, smaller.optimizer.variables, strict=True):
        np.testing.assert_array_equal(new.numpy(), old.numpy())
    model.get_layer("conv").trainable = True
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(x, y)
    smaller, _ = sepconv.factorize(model, rank=1)
    assert int(smaller.optimizer.iterations) == 0
    smaller.train_on_batch(x, y)
    assert int(smaller.optimizer.iterations) == 1


def test_the_report_prints(model):
    _, report = sepconv.factorize(model, flops=0.5, data=_pictures(20))
    text = str(report)
    assert "factorize net" in text
    for row in report:
        assert row.layer in text
    assert f"{report.multiply_adds[0]:,} -> {report.multiply_adds[1]:,}" in text
    assert min(report.milliseconds) > 0
    assert report.seconds > 0


class _Standardized(keras.layers.Conv2D):
    """Computes with something else than its kernel."""


@keras.saving.register_keras_serializable("sepconv-tests")
class _Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = keras.layers.Conv2D(4, 3, padding="same", name="inside")

    def call(self, x):
        return self.inside(x)


def test_what_cannot_be_taken_apart_is_left_alone():
    def own_activation(x):
        return keras.ops.tanh(x)

    def own_loss(y, p):
        return keras.ops.mean((y - p) ** 2)

    model = keras.Sequential(
        [
            keras.Input((2, 8, 8, 4)),
            keras.layers.TimeDistributed(keras.layers.Conv2D(8, 3, name="timed"), name="each"),
            keras.layers.Reshape((12, 6, 8)),
            _Standardized(8, 3, name="standardized"),
            keras.layers.Conv2D(16, 3, activation=own_activation, name="free"),
            keras.layers.Conv2D(8, 3, kernel_constraint="non_neg", padding="same", name="bound"),
            _Block(name="block"),
        ]
    )
    model.compile("sgd", own_loss)
    smaller, report = sepconv.factorize(model, rank=1)
    notes = {row.layer: row.note for row in report if row.rank is None}
    assert [row.layer for row in report if row.rank] == ["free"]
    assert "'each'" in notes["each/timed"]
    assert "subclass" in notes["standardized"]
    assert "kernel_constraint" in notes["bound"]
    assert "'block'" in notes["block/inside"]
    assert smaller.get_layer("free").activation is own_activation
    assert np.isfinite(_predict(smaller, np.ones((1, 2, 8, 8, 4), "float32"))).all()


def test_a_model_of_several_inputs_and_unknown_sizes():
    keras.utils.set_random_seed(0)
    left, right = keras.Input((None, None, 4), name="left"), keras.Input((4,), name="right")
    x = keras.layers.Conv2D(16, 3, name="conv")(left)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(2)(keras.layers.Concatenate()([pooled, right]))
    model = keras.Model({"left": left, "right": right}, outputs)
    data = {"left": _pictures(9, channels=4), "right": np.ones((9, 4), "float32")}
    smaller, report = sepconv.factorize(model, rank=2, data=data)
    assert report[0].multiply_adds[0] == 64 * 9 * 4 * 16
    assert report[0].error < report[0].svd_error
    assert _predict(smaller, data).shape == (9, 2)
    without = sepconv.factorize(model, rank=2).report
    assert without[0].multiply_adds[0] == 62 * 62 * 9 * 4 * 16


def test_multiply_adds_count_every_kind_of_convolution():
    layers = keras.layers
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2DTranspose(6, 3, strides=2, padding="same", name="up")(inputs)
    x = layers.Reshape((4, 4, 16, 6))(x)
    x = layers.Conv3D(5, (1, 2, 3), strides=(2, 1, 1), padding="same", name="deep")(x)
    x = layers.Reshape((32, 20))(x)
    x = layers.Conv1DTranspose(3, 2, name="line")(x)
    x = layers.Reshape((33, 1, 3))(x)
    model = keras.Model(inputs, layers.Conv2D(16, (3, 1), name="conv")(x))
    _, report = sepconv.factorize(model, rank=1)
    others = 8 * 8 * 9 * 4 * 6 + 2 * 4 * 16 * 6 * 6 * 5 + 32 * 2 * 20 * 3
    assert report[0].multiply_adds == (31 * 3 * 3 * 16, 31 * 3 * (3 + 16))
    assert report.multiply_adds == tuple(others + n for n in report[0].multiply_adds)


def test_refusals_say_why(model):
    with pytest.raises(ValueError, match=r"grouped \(groups=2\)"):
        sepconv.factorize(_layer(4, groups=2), rank=1)
    with pytest.raises(ValueError, match="not built"):
        sepconv.factorize(keras.layers.Conv2D(3, 3), rank=1)
    with pytest.raises(ValueError, match="subclass"):
        sepconv.factorize(_Standardized(3, 3), rank=1)
    with pytest.raises(ValueError, match="a Dense"):
        sepconv.factorize(keras.layers.Dense(3), rank=1)
    with pytest.raises(TypeError, match="type int"):
        sepconv.factorize(3, rank=1)

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="Sequential or Functional"):
        sepconv.factorize(Own(), rank=1)

    class Sized(keras.Model):
        def __init__(self, size):
            inputs = keras.Input((8, 8, size))
            super().__init__(inputs, keras.layers.Conv2D(4, 3)(inputs))

    with pytest.raises(ValueError, match="without a constructor of its own"):
        sepconv.factorize(Sized(3), rank=1)
    with pytest.raises(ValueError, match=r"flops must be at least \d+ \(of \d+\)"):
        sepconv.factorize(model, flops=0.01)
    bad = _pictures(4)
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        sepconv.factorize(model, rank=1, data=bad)
    assert "call" not in vars(model.get_layer("first"))
    with pytest.raises(ValueError, match="data"):
        sepconv.factorize(model, rank=1, data=bad[:0])


@pytest.mark.parametrize(
    ("goal", "error"),
    [
        ({}, ValueError),
        ({"rank": 1, "flops": 0.5}, ValueError),
        ({"rank": 0}, ValueError),
        ({"rank": 1.5}, TypeError),
        ({"energy": 0.0}, ValueError),
        ({"energy": 2}, ValueError),
        ({"max_error": -1}, ValueError),
        ({"max_error": "low"}, TypeError),
        ({"flops": 1.5}, ValueError),
        ({"flops": True}, TypeError),
        ({"parameters": 0}, ValueError),
        ({"parameters": float("nan")}, ValueError),
    ],
    ids=str,
)
def test_goals_are_checked(goal, error):
    with pytest.raises(error, match=next(iter(goal), "Exactly one")):
        sepconv.factorize(_layer(), **goal)


def test_recurrent_states_stay():
    """Keras does not count them among the model's variables."""
    x = keras.Input((6, 8, 2), batch_size=2)
    y = keras.layers.Conv2D(8, 3, padding="same", name="conv")(x)
    y = keras.layers.GRU(3, stateful=True, name="gru")(keras.layers.Reshape((6, 64))(y))
    model = keras.Model(x, y)
    state = model.get_layer("gru").states[0]
    assert all(state is not v for v in model.variables)
    state.assign(np.full((2, 3), 0.25, "float32"))
    smaller, report = sepconv.factorize(model, rank=1)
    assert report.milliseconds is not None  # it was run
    for one in (model, smaller):
        np.testing.assert_array_equal(one.get_layer("gru").states[0].numpy(), np.full((2, 3), 0.25))
        assert one.predict_function is None


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that nobody registered."""

    def __call__(self, step):
        return 0.1 / (1.0 + keras.ops.cast(step, "float32"))

    def get_config(self):
        return {}


def test_an_own_schedule_in_an_optimizer_that_scales_the_loss():
    model = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Conv2D(8, 3, name="conv")])
    inner = keras.optimizers.RMSprop(Falling(), global_clipnorm=0.5)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse", jit_compile=False)
    smaller, _ = sepconv.factorize(model, rank=1)
    assert smaller.compiled
    assert type(smaller.optimizer.inner_optimizer) is type(inner)
    assert type(smaller.optimizer.inner_optimizer._learning_rate) is Falling
    assert smaller.optimizer.inner_optimizer.global_clipnorm == 0.5
