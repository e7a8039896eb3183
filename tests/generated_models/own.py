"""Functions, layers and models as people write them for themselves.

All but one can be made from their configs; some are registered with Keras, others must be named
when a file is loaded: `CUSTOM_OBJECTS`.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops


def bent(x):
    """An activation of one's own."""
    return ops.where(x > 0, x, 0.2 * x) + 0.1


@keras.saving.register_keras_serializable("generated")
def wavy(x):
    """One that is registered with Keras."""
    return x + ops.sin(x)


FUNCTIONS = (bent, wavy)


def engine_activations():
    """Functions of the engine's own."""
    engine = keras.backend.backend()
    if engine == "jax":
        import jax

        return jax.nn.relu6, jax.nn.silu, jax.numpy.tanh
    if engine == "torch":
        import torch

        return torch.nn.functional.elu, torch.tanh, torch.nn.functional.silu
    import tensorflow as tf

    return tf.nn.elu, tf.nn.relu6, tf.tanh


SHIFT = 0.5


def shifted(x):
    """For `Lambda`; needs a name of its module."""
    return ops.tanh(x) + SHIFT


class Scale(keras.layers.Layer):
    """A weight, and no constructor."""

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")

    def call(self, x):
        return x * self.factor

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("generated")
class Power(keras.layers.Layer):
    """With a config, and a number that is set later and is in no config."""

    def __init__(self, slope=0.5, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope

    def call(self, x):
        return ops.where(x > 0, x, self.slope * x)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "slope": self.slope}


class Tuned(keras.layers.Layer):
    """What it computes is an attribute that its owner sets, and that is in no config."""

    hidden = "gain"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gain = 1.0

    def call(self, x):
        return x * self.gain


class Table(keras.layers.Layer):
    """Its state is an array that is no variable, in files by its own methods."""

    hidden = "table"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = np.ones(1, "float32")

    def call(self, x):
        return x + ops.cast(ops.convert_to_tensor(self.table), x.dtype)

    def save_own_variables(self, store):
        store["table"] = self.table

    def load_own_variables(self, store):
        self.table = np.array(store["table"])


class Lexicon(keras.layers.Layer):
    """Its state is in a file of its own: assets."""

    hidden = "numbers"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.numbers = [1.0]

    def call(self, x):
        return x * ops.convert_to_tensor(np.array(self.numbers, "float32").mean(), x.dtype)

    def save_assets(self, folder):
        with open(f"{folder}/numbers.txt", "w") as file:
            file.write(" ".join(map(repr, self.numbers)))

    def load_assets(self, folder):
        with open(f"{folder}/numbers.txt") as file:
            self.numbers = [float(word) for word in file.read().split()]


class Counting(keras.layers.Layer):
    """A weight that training changes without a gradient: a count of calls, which it adds."""

    def build(self, input_shape):
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="calls", dtype="float32"
        )

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1.0)
        return x + ops.cast(0.1 * self.calls, x.dtype)


class Bare(keras.layers.Layer):
    """No get_config for an argument that Keras cannot write by itself."""

    def __init__(self, shift, **kwargs):
        super().__init__(**kwargs)
        self.shift = np.asarray(shift, "float32")

    def call(self, x):
        return x + ops.cast(ops.convert_to_tensor(self.shift), x.dtype)


class Block(keras.layers.Layer):
    """Layers inside a layer, in an attribute and a list."""

    def __init__(self, filters, data_format="channels_last", **kwargs):
        super().__init__(**kwargs)
        self.filters, self.data_format = filters, data_format
        axis = -1 if data_format == "channels_last" else 1
        self.deep = keras.layers.DepthwiseConv2D(3, padding="same", data_format=data_format)
        self.rest = [
            keras.layers.BatchNormalization(axis=axis),
            keras.layers.Conv2D(filters, 1, data_format=data_format, activation="relu"),
        ]

    def build(self, input_shape):
        self.deep.build(input_shape)
        for layer in self.rest:
            layer.build(input_shape)

    def call(self, x, training=None):
        x = self.deep(x)
        x = self.rest[0](x, training=training)
        return self.rest[1](x)

    def compute_output_shape(self, input_shape):
        return self.rest[1].compute_output_shape(input_shape)

    def get_config(self):
        own = {"filters": self.filters, "data_format": self.data_format}
        return {**super().get_config(), **own}


class Doubled(keras.layers.DepthwiseConv2D):
    """Derived from a layer that sepconv computes, and computes something else."""

    def call(self, x):
        return 2.0 * super().call(x)


class Named(keras.layers.Conv2D):
    """Derived from `Conv2D`, and nothing more."""


@keras.saving.register_keras_serializable("generated")
class Chain(keras.Model):
    """A subclassed model whose parts are in its config."""

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def build(self, input_shape):
        for part in self.parts:
            if not part.built:
                part.build(input_shape)
            input_shape = part.compute_output_shape(input_shape)

    def call(self, x, training=None):
        for part in self.parts:
            options = {"training": training} if part._call_has_training_arg else {}
            x = part(x, **options)
        return x

    def compute_output_shape(self, input_shape):
        for part in self.parts:
            input_shape = part.compute_output_shape(input_shape)
        return input_shape

    def get_config(self):
        parts = [keras.saving.serialize_keras_object(part) for part in self.parts]
        return {**super().get_config(), "parts": parts}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = [
            keras.saving.deserialize_keras_object(part, custom_objects, safe_mode=False)
            for part in config.pop("parts")
        ]
        return cls(parts, **config)


class Stem(keras.Model):
    """A subclassed model with layers of its own in attributes, a list and a dict."""

    def __init__(self, filters=4, data_format="channels_last", **kwargs):
        super().__init__(**kwargs)
        self.filters, self.data_format = filters, data_format
        options = {"data_format": data_format, "padding": "same"}
        axis = -1 if data_format == "channels_last" else 1
        self.blocks = [
            keras.layers.SeparableConv2D(filters, 3, **options),
            keras.layers.BatchNormalization(axis=axis),
            keras.layers.DepthwiseConv2D(3, **options),
        ]
        self.head = {"mix": keras.layers.Conv2D(filters, 1, data_format=data_format)}

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)
            input_shape = block.compute_output_shape(input_shape)
        self.head["mix"].build(input_shape)

    def call(self, x, training=None):
        x = self.blocks[0](x)
        x = self.blocks[1](x, training=training)
        x = ops.relu(self.blocks[2](x))
        return self.head["mix"](x)

    def compute_output_shape(self, input_shape):
        axis = -1 if self.data_format == "channels_last" else 1
        shape = list(input_shape)
        shape[axis] = self.filters
        return tuple(shape)

    def get_config(self):
        own = {"filters": self.filters, "data_format": self.data_format}
        return {**super().get_config(), **own}


class Line(keras.Sequential):
    """Derived from Sequential, with nothing of its own."""


class Net(keras.Model):
    """Derived from Model, made of a graph, with a training step of its own."""

    def train_step(self, *args):
        return super().train_step(*args)


class Sink(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of one's own."""

    def __init__(self, start=0.02):
        super().__init__()
        self.start = start

    def __call__(self, step):
        return self.start / (1.0 + ops.cast(step, "float32"))

    def get_config(self):
        return {"start": self.start}


def own_loss(y, prediction):
    """A function of one's own."""
    return ops.mean(ops.square(ops.subtract(y, prediction)), axis=-1)


class Widest(keras.metrics.Metric):
    """A metric of one's own, with a config."""

    def __init__(self, factor=1.0, name="widest", **kwargs):
        super().__init__(name=name, **kwargs)
        self.factor = factor
        self.total = self.add_weight(shape=(), initializer="zeros", name="total")

    def update_state(self, y, prediction, sample_weight=None):
        self.total.assign_add(
            ops.cast(self.factor * ops.max(ops.abs(ops.subtract(y, prediction))), "float32")
        )

    def result(self):
        return ops.convert_to_tensor(self.total)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def own_metric(y, prediction):
    """A metric that is a function."""
    return ops.mean(ops.abs(ops.subtract(y, prediction)), axis=-1)


CUSTOM_OBJECTS = {
    thing.__name__: thing
    for thing in (
        *(bent, shifted, own_loss, own_metric),
        *(Scale, Tuned, Table, Lexicon, Counting, Bare, Block, Doubled, Named),
        *(Stem, Line, Net, Sink, Widest),
    )
}
