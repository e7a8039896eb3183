"""A model that was called to be compared is as before: state, generators, modes and names."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
from helpers.networks import numbers, sequential
from helpers.verification import check, refused
from keras import layers

from sepconv.models.copying import copy_model

BACKEND = keras.backend.backend()


class Restless(layers.Layer):
    """Everything that a layer can change when it is called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(3)
        self.seen = []
        self.metric = keras.metrics.Mean()

    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
        super().build(shape)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x):
        self.count.assign(self.count + 1)
        self.seen.append(1)
        self.last = len(self.seen)
        self.add_loss(keras.ops.sum(x))
        self.metric.update_state(keras.ops.mean(x))
        random.random()
        np.random.standard_normal()
        if BACKEND == "torch":
            import torch

            torch.rand(1)
        if BACKEND == "tensorflow":
            import tensorflow as tf

            tf.random.get_global_generator().normal((1,))
        return x + keras.random.normal((1,), seed=self.seed) + keras.random.normal((1,))


def restless():
    inputs = keras.Input((5, 4), batch_size=2)
    x = Restless(name="restless")(inputs)
    x = layers.GRU(3, stateful=True, return_sequences=True, name="gru")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dropout(0.5, seed=1, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(2, name="dense")(x))


def state(model):
    """All that a call of a model may change, as things to compare."""
    kept = {}
    for layer in model._flatten_layers():
        for name, value in vars(layer).items():
            kept[layer.name, id(layer), name] = id(value)
            if isinstance(value, list | dict | set):
                kept[layer.name, id(layer), name, "in"] = [id(x) for x in value]
    variables = [v.numpy() if hasattr(v, "numpy") else np.asarray(v) for v in model.variables]
    seeds = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
    generators = [random.getstate(), str(np.random.get_state())]
    generators.append(None if seeds is None else keras.ops.convert_to_numpy(seeds.state).tolist())
    names = dict(vars(keras.src.backend.common.global_state.GLOBAL_STATE_TRACKER))
    generators.append(sorted(names))
    generators.append(dict(names.get("object_name_uids") or {}))
    if BACKEND == "torch":
        import torch

        generators += [torch.get_rng_state().tolist(), torch.get_num_threads()]
        generators += [m.training for m in model.modules()]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        generators.append(tf.random.get_global_generator().state.numpy().tolist())
    losses = [float(loss) for loss in model.losses]
    return kept, variables, generators, losses


def assert_same_state(before, after):
    kept, variables, generators, losses = before
    now_kept, now_variables, now_generators, now_losses = after
    assert now_kept == kept
    assert now_generators == generators
    assert now_losses == losses
    for old, new in zip(variables, now_variables, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("global_seeds", [True, False])
def test_nothing_is_left_behind(global_seeds):
    model, copy = restless(), restless()
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.random.get_global_generator()
    if global_seeds:
        keras.random.normal((1,))  # makes Keras' own generator
    else:
        keras.src.backend.common.global_state.set_global_attribute("global_seed_generator", None)
    copy.set_weights(model.get_weights())
    before = state(model), state(copy)
    # The same seeds on both sides: the same numbers.
    assert check(model, copy).startswith("verified")
    for old, m in zip(before, (model, copy), strict=True):
        assert_same_state(old, state(m))
    assert model.predict_function is None
    copy.get_layer("dense").bias.assign([5.0, 5.0])
    before = state(model), state(copy)
    refused(model, copy, "dense")
    for old, m in zip(before, (model, copy), strict=True):
        assert_same_state(old, state(m))


def test_nothing_is_left_behind_where_a_layer_raises():
    class Broken(layers.Layer):
        def call(self, x):
            self.mark = 1
            raise RuntimeError("broken on purpose")

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    x = keras.Input((5, 4), batch_size=2)
    model = keras.Model(x, Broken()(Restless()(x)))
    good = keras.Model(x, Restless()(x))
    before = state(model)
    with pytest.raises(ValueError, match="broken on purpose"):
        check(good, model)
    assert_same_state(before, state(model))


def test_what_was_never_called_still_was_not():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    copy = copy_model(model)
    for part in (copy, *copy.layers):
        part._called = False
    check(model, copy)
    assert not any(part._called for part in (copy, *copy.layers))


@pytest.mark.skipif(BACKEND != "torch", reason="modules are PyTorch's")
def test_modules_of_torch_keep_mode_and_buffers():
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout())
    model = keras.Sequential([keras.Input((4,)), keras.layers.TorchModuleWrapper(module)])
    module.train()
    before = [b.clone() for b in module.buffers()]
    assert check(model, model).startswith("verified")
    assert all(m.training for m in module.modules())
    for old, new in zip(before, module.buffers(), strict=True):
        assert torch.equal(old, new)


def test_a_compiled_model_keeps_its_metrics_and_functions():
    model = sequential()
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(numbers(4, 8, 8, 3), np.ones((4, 3)), verbose=0)
    model.predict(numbers(2, 8, 8, 3), verbose=0)
    before, function = [v.numpy() for v in model.metrics_variables], model.predict_function
    check(model, copy_model(model))
    assert model.predict_function is function
    for old, new in zip(before, model.metrics_variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
