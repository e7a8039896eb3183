"""Copies of models keep what no config says: state, functions, attributes, and how they train."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
from helpers.networks import assert_near, numbers
from keras import layers, ops

import sepconv
from sepconv.models.copying import copy_model
from sepconv.models.duplicate import CannotCopyError, Copier

IMAGE = numbers(2, 8, 8, 3)


def line(*parts, shape=(8, 8, 3), **options):
    return keras.Sequential([keras.Input(shape, **options), *parts])


def deep(**options):
    return layers.DepthwiseConv2D(3, padding="same", **options)


def plain(value):
    return np.asarray(ops.convert_to_numpy(value))


def check(model, x, tolerance=1e-5):
    """A copy through two functions predicts the same and shares no variable."""
    expected = keras.tree.flatten(model(x, training=False))
    fast = sepconv.accelerate(model).model
    for copy in (fast, sepconv.to_stock(fast)):
        for a, b in zip(expected, keras.tree.flatten(copy(x, training=False)), strict=True):
            assert_near(b, a, tolerance)
        held = {id(variable) for variable in model.variables}
        assert held.isdisjoint(id(variable) for variable in copy.variables)
        assert [v.path for v in copy.variables] == [v.path for v in model.variables]
    return fast


# ---- state that is no weight


def normalized():
    layer = layers.Normalization()
    layer.adapt(3 * numbers(10, 8, 8, 3) + 5)
    return line(layer, deep()), IMAGE


def discretized():
    layer = layers.Discretization(num_bins=4)
    layer.adapt(numbers(100, 4))
    return line(layer, layers.Embedding(6, 3), shape=(4,)), numbers(2, 4)


def looked_up():
    numbers_of = layers.IntegerLookup(vocabulary=[4, 7, 9])
    model = line(numbers_of, layers.Embedding(10, 4), shape=(3,), dtype="int64")
    return model, np.array([[4, 7, 1], [9, 9, 0]])


def hashed():
    model = line(layers.Hashing(5, salt=7), layers.Embedding(5, 2), shape=(3,), dtype="int32")
    return model, np.arange(6, dtype="int32").reshape(2, 3)


def adapted_dense():
    model = line(deep(), layers.GlobalAveragePooling2D(), layers.Dense(8, name="dense"))
    layer = model.get_layer("dense")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(numbers(2, 8))
    return model, IMAGE


def quantized():
    model = line(deep(), layers.GlobalAveragePooling2D(), layers.Dense(8, name="dense"))
    model.get_layer("dense").quantize("int8")
    return model, IMAGE


def recurrent():
    model = line(layers.LSTM(4, stateful=True), batch_size=2, shape=(4, 3))
    model(numbers(2, 4, 3))
    return model, numbers(2, 4, 3)


def policies():
    model = line(
        deep(dtype="mixed_bfloat16"),
        layers.Conv2D(4, 1, dtype="float64"),
        layers.Activation("linear", dtype="float32"),
    )
    return model, IMAGE


def masked():
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(9, 4, mask_zero=True)(x)
    convolution = layers.Conv1D(4, 1)
    convolution.supports_masking = True
    return keras.Model(x, layers.LSTM(3)(convolution(y))), np.array([[1, 2, 0, 0, 0]], "int32")


def mix(*makers):
    return pytest.mark.parametrize("make", makers, ids=lambda make: make.__name__)


@mix(normalized, discretized, looked_up, hashed, adapted_dense, quantized, policies, masked)
def test_state_outside_of_the_weights(make):
    model, x = make()
    # TensorFlow adds products up in bfloat16 on processors without AVX-512, sepconv in float32.
    copy = check(model, x, tolerance=1e-2 if make is policies else 1e-5)
    for old, new in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
        assert new.dtype_policy == old.dtype_policy
        assert new.supports_masking == old.supports_masking
        assert getattr(new, "lora_rank", None) == getattr(old, "lora_rank", None)


def test_the_state_of_a_recurrent_layer_goes_on():
    model, x = recurrent()
    copy = sepconv.accelerate(model).model
    for _ in range(2):
        assert_near(copy(x), model(x))


def test_vocabularies_of_words():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("strings in a model take TensorFlow")
    x = keras.Input((3,), dtype="string")
    layer = layers.StringLookup()
    layer.adapt(["a", "b", "c", "b"])
    model = keras.Model(x, layers.Embedding(10, 4)(layer(x)))
    copy = sepconv.accelerate(model).model
    words = ops.convert_to_tensor([["a", "b", "z"]])
    assert_near(copy(words), model(words))
    lookup = next(part for part in copy.layers if isinstance(part, layers.StringLookup))
    assert lookup.get_vocabulary() == layer.get_vocabulary()
    texts = keras.Input((1,), dtype="string")
    vectors = layers.TextVectorization(output_sequence_length=4)
    vectors.adapt(["hello big world", "world"])
    model = keras.Model(texts, layers.Embedding(10, 4)(vectors(texts)))
    said = ops.convert_to_tensor([["hello world"], ["big x"]])
    assert_near(sepconv.accelerate(model).model(said), model(said))


def test_random_numbers_go_on():
    model = line(layers.RandomFlip(seed=3), layers.Dropout(0.3), layers.GaussianNoise(0.1), deep())
    model(IMAGE, training=True)
    copy = sepconv.accelerate(model).model
    for _ in range(2):
        results = []
        for each in (model, copy):
            if keras.backend.backend() == "torch":  # whose dropout takes PyTorch's own numbers
                import torch

                torch.manual_seed(0)
            results.append(each(IMAGE, training=True))
        assert_near(*results)


# ---- layers of one's own


class Own(layers.Layer):
    """What it was made of is in no config, and what was set on it later neither."""

    def __init__(self, factors):
        super().__init__()
        self.factors = factors
        self.inner = layers.Dense(3)
        self.act = lambda x: self.inner(x) * self.factors["a"][0]

    def call(self, x):
        return self.act(x) + getattr(self, "offset", 0.0)


def own():
    layer = Own({"a": [3.0]})
    model = line(layer, deep())
    layer.offset = 2.0
    layer.factors["a"][0] = 7.0
    return model


def test_attributes_and_functions_that_refer_to_the_layer():
    model = own()
    copy = check(model, IMAGE)
    mine, theirs = copy.layers[0], model.layers[0]
    mine.inner.kernel.assign(0 * mine.inner.kernel)
    mine.factors["a"].append(1.0)
    assert theirs.factors == {"a": [7.0]}
    # The function in the copy refers to the copy.
    assert np.ptp(plain(mine(IMAGE)), axis=(0, 1, 2)).max() == 0
    assert np.ptp(plain(theirs(IMAGE)), axis=(0, 1, 2)).max() > 0


def engine_activation():
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.nn.relu6
    if backend == "torch":
        import torch

        return torch.nn.functional.elu
    import tensorflow as tf

    return tf.nn.elu


def test_functions_are_shared_and_layers_in_their_place_copied():
    functions = lambda x: ops.tanh(x), engine_activation()
    model = line(
        deep(activation=functions[0]),
        layers.Conv2D(4, 3, activation=functions[1]),
        layers.Conv2D(4, 1, activation=layers.PReLU(alpha_initializer="ones")),
        layers.Lambda(lambda x: 2 * x),
        layers.Dense(3, activation=engine_activation()),
    )
    copy = check(model, IMAGE)
    assert tuple(layer.activation for layer in copy.layers[:2]) == functions
    assert copy.layers[2].activation is not model.layers[2].activation
    optimized, record = sepconv.optimize(model)
    assert_near(optimized(IMAGE), model(IMAGE), 1e-4)
    assert "its activation is a layer" in {change.note for change in record}
    smaller = sepconv.factorize(model, rank=4).model
    assert smaller.layers[1].activation is functions[1]


class Words(layers.Layer):
    """It saves its words in a file, and holds a lock and a file of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.words = []
        self.lock, self.file = threading.Lock(), open(__file__)  # noqa: SIM115

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    def save_assets(self, folder):
        with open(f"{folder}/words", "w") as file:
            file.write(",".join(map(str, self.words)))

    def load_assets(self, folder):
        with open(f"{folder}/words") as file:
            self.words = [float(word) for word in file.read().split(",")]

    def call(self, x):
        return x * self.scale + sum(self.words)


def test_a_layer_that_cannot_be_copied_is_made_from_its_config_and_assets():
    layer = Words(name="words")
    model = line(layer, deep())
    layer.words = [1.0, 2.5]
    layer.scale.trainable = False
    with pytest.raises(CannotCopyError, match="TextIOWrapper"):
        Copier().copy(layer)
    copy = check(model, IMAGE)
    mine = copy.get_layer("words")
    assert mine.words == [1.0, 2.5]
    assert mine.file is not layer.file
    assert not mine.scale.trainable
    optimized = sepconv.optimize(model).model
    assert_near(optimized(IMAGE), model(IMAGE))


def test_what_can_be_neither_copied_nor_made_is_named():
    class Stuck(layers.Layer):
        def __init__(self, lines):
            super().__init__(name="stuck")
            self.lines = lines

        def call(self, x):
            return x

    model = line(deep(), Stuck(number for number in range(3)))
    for function in (sepconv.accelerate, sepconv.to_stock, sepconv.optimize):
        with pytest.raises(ValueError, match=r"layer 'stuck', a Stuck, can be neither copied"):
            function(model)


def test_a_network_deeper_than_pythons_stack():
    x = y = keras.Input((4,))
    for _ in range(300):
        y = y + 1.0
    assert_near(copy_model(keras.Model(x, y))(numbers(2, 4)), numbers(2, 4) + 300)


def test_part_of_another_models_graph_alone_is_copied():
    x = keras.Input((8, 8, 3))
    middle = deep(name="middle")(x)
    whole = keras.Model(x, layers.Conv2D(50, 3, name="after")(middle))
    part = keras.Model(x, middle)
    copy = copy_model(part)
    assert len(copy.get_layer("middle")._outbound_nodes) == 0
    assert [layer.name for layer in copy.layers] == [layer.name for layer in part.layers]
    assert_near(copy(IMAGE), part(IMAGE))
    rebuilt = type(copy).from_config(copy.get_config())
    assert [layer.name for layer in rebuilt.layers] == [layer.name for layer in part.layers]
    assert len(whole.get_layer("middle")._outbound_nodes) == 1


# ---- compilation


class Decay(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule without a config."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate / (1 + ops.cast(step, "float32"))


class Far(keras.metrics.Metric):
    """A metric without a config."""

    def __init__(self, factor):
        super().__init__(name="far")
        self.factor = factor
        self.total = self.add_weight(initializer="zeros")

    def update_state(self, y, y_pred, sample_weight=None):
        self.total.assign_add(self.factor * ops.mean(ops.abs(ops.convert_to_tensor(y) - y_pred)))

    def result(self):
        return self.total + 0.0


def weighted(weight):
    return lambda y, y_pred: weight * ops.mean(ops.square(y - y_pred), -1)


def excluding(optimizer, **what):
    optimizer.exclude_from_weight_decay(**what)
    return optimizer


optimizers = keras.optimizers
COMPILED = {
    "excluded by name": lambda m: {
        "optimizer": excluding(
            optimizers.SGD(1e-3, weight_decay=5.0, momentum=0.9), var_names=["bias", "gamma"]
        )
    },
    "excluded by reference": lambda m: {
        "optimizer": excluding(
            optimizers.AdamW(1e-3, weight_decay=5.0), var_list=[m.layers[0].bias]
        )
    },
    "schedule": lambda m: {"optimizer": optimizers.SGD(Decay(0.01))},
    "function": lambda m: {"optimizer": optimizers.SGD(lambda: 0.01), "loss": weighted(3.0)},
    "metrics": lambda m: {
        "optimizer": "sgd",
        "metrics": [Far(3.0), "mae"],
        "weighted_metrics": [Far(2.0)],
    },
    "average": lambda m: {
        "optimizer": optimizers.SGD(0.01, use_ema=True, ema_overwrite_frequency=2)
    },
    "accumulation": lambda m: {
        "optimizer": optimizers.SGD(0.01, gradient_accumulation_steps=3, clipnorm=0.5)
    },
    "scaled": lambda m: {
        "optimizer": optimizers.LossScaleOptimizer(
            excluding(optimizers.SGD(1e-2, weight_decay=2.0), var_names=["bias"]),
            initial_scale=4.0,
            dynamic_growth_steps=2,
        )
    },
    "eager": lambda m: {"optimizer": "sgd", "run_eagerly": True},
}


@pytest.mark.parametrize("how", COMPILED)
@pytest.mark.filterwarnings("error:What model")
def test_a_copy_trains_as_its_model_does(how):
    model = line(
        deep(bias_initializer="ones"),
        layers.Activation("tanh"),
        layers.BatchNormalization(),
        layers.GaussianNoise(0.3),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2),
    )
    model.compile(**{"loss": "mse", "jit_compile": False, **COMPILED[how](model)})
    x, y = numbers(8, 8, 8, 3), numbers(8, 2)
    model.train_on_batch(x, y)
    copy = sepconv.accelerate(model).model
    assert (copy.run_eagerly, copy.jit_compile) == (model.run_eagerly, model.jit_compile)
    for _ in range(3):
        expected, found = (m.train_on_batch(x, y, return_dict=True) for m in (model, copy))
        assert found.keys() == expected.keys()
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)
    pairs = zip(
        (*model.variables, *model.optimizer.variables),
        (*copy.variables, *copy.optimizer.variables),
        strict=True,
    )
    for old, new in pairs:
        np.testing.assert_allclose(plain(new), plain(old), rtol=1e-3, atol=1e-4, err_msg=old.path)


def test_what_a_model_is_compiled_with_cannot_be_copied():
    model = line(deep(), layers.GlobalAveragePooling2D())
    model.compile("sgd", "mse")
    model.optimizer.lines = (number for number in range(3))
    with pytest.warns(UserWarning, match=r"is compiled with cannot be copied: call compile\(\)"):
        copy = sepconv.accelerate(model).model
    assert (copy.compiled, getattr(copy, "optimizer", None)) == (False, None)
    copy.compile("sgd", "mse")
    copy.train_on_batch(IMAGE, numbers(2, 3))


def test_factorize_excludes_what_takes_the_place_of_what_was_excluded():
    model = line(layers.Conv2D(8, 3, name="dense"), layers.GlobalAveragePooling2D())
    kernel = model.get_layer("dense").kernel
    optimizer = excluding(optimizers.SGD(0.1, weight_decay=1.0), var_list=[kernel])
    model.compile(optimizer, "mse")
    smaller = sepconv.factorize(model, rank=1).model
    used = {
        v.name: smaller.optimizer._use_weight_decay(v) for v in smaller.get_layer("dense").variables
    }
    assert used == {"depthwise_kernel": False, "pointwise_kernel": False, "bias": True}


def test_a_nested_models_compilation_is_kept():
    inner = line(deep(), layers.GlobalAveragePooling2D(), layers.Dense(2))
    inner.compile(optimizers.SGD(0.5), "mse")
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, inner(x))
    copy = sepconv.accelerate(model).model
    mine = copy.get_layer(inner.name)
    assert not copy.compiled
    assert mine.compiled
    assert mine.optimizer is not inner.optimizer
    mine.train_on_batch(IMAGE, numbers(2, 2))
