"""Choices made from a seed, and the layers made by them."""

from __future__ import annotations

import keras
import numpy as np

from generated_models.own import FUNCTIONS, engine_activations

#: The widths that layers have: few, so that engines compile few programs.
WIDTHS = (4, 8)


class UnfitError(Exception):
    """What was drawn does not go with what there is; something else is to be drawn."""


class Draw:
    """Makes one model's choices.

    Attributes:
        engine: Keras' backend.
        random: NumPy's generator; everything is drawn from it, in one order.
        features: words for what the model has that matters to what is promised of it.
        made: the layers' names, classes and options, for people.
        format: the data format of the tensor for which a layer is being drawn.
    """

    def __init__(self, *seed):
        self.engine = keras.backend.backend()
        self.random = np.random.default_rng(seed)
        self.features = set()
        self.made = []
        self.format = "channels_last"
        #: What to do once the model is built, and what once its weights have their values.
        self.later, self.last = [], []
        #: Of the input of a model that does not know it, with the batch's axis.
        self.input_shape = None
        self.half = self.chance(0.15)

    def chance(self, probability):
        return self.random.random() < probability

    def one(self, *options):
        return options[self.random.integers(len(options))]

    def number(self, low, high):
        """An integer, both ends included."""
        return int(self.random.integers(low, high + 1))

    def seed(self):
        return self.number(1, 999)

    def width(self):
        if self.engine == "jax" and self.chance(0.8):
            return WIDTHS[-1]  # where a program a shape and operation is most of the time
        return self.one(*WIDTHS)

    def array(self, *shape):
        return self.random.standard_normal(shape).astype("float32")

    def name(self, kind):
        return f"{kind}_{len(self.made)}"

    def layer(self, kind, *args, half=False, **options):
        """A layer of the class `kind`: named, at times frozen or of a dtype policy of its own.

        Args:
            kind: the class.
            *args: its constructor's.
            half: whether engines compute it in half types.
            **options: its constructor's.
        """
        options.setdefault("name", self.name(kind.__name__.lower()))
        if self.chance(0.05):
            options["trainable"] = False
        if half and self.half and self.chance(0.4):
            policies = ["mixed_bfloat16", "bfloat16", "mixed_float16"]
            if self.engine != "jax":  # which has no float64 unless told
                policies += ["float64", "float64"]
            options["dtype"] = self.one(*policies)
            self.features.add(options["dtype"].removeprefix("mixed_"))
        if issubclass(kind, keras.layers.Wrapper):
            self.features.add("config with layers")
        layer = kind(*args, **options)
        said = [repr(a) if isinstance(a, (int, str, tuple)) else "..." for a in args]
        said += [
            f"{k}={v if isinstance(v, (int, float, str, tuple, bool)) else _short(v)}"
            for k, v in options.items()
            if k != "name"
        ]
        self.made.append(f"{layer.name}: {kind.__name__}({', '.join(said)})")
        return layer

    def say(self, words):
        """Adds to the description what is no layer."""
        self.made.append(words)

    def activation(self, chance=0.6):
        """What to give as ``activation=``."""
        if not self.chance(chance):
            return None
        pick = self.random.random()
        if pick < 0.55:
            names = ("relu", "relu6", "silu", "hard_silu", "tanh", "elu", "gelu", "softplus")
            return self.one(*names)
        if pick < 0.7:
            return self.one(keras.activations.relu, keras.activations.swish, keras.activations.selu)
        if pick < 0.8:
            return self.one(*FUNCTIONS)
        if pick < 0.9:
            self.features.add("engine function")
            return self.one(*engine_activations())
        if pick < 0.94:
            self.features.add("lambda")
            return lambda x: x * 0.75 + keras.ops.tanh(x)
        if pick < 0.97:
            self.features.add("layer as activation")
            return keras.layers.PReLU(name=self.name("prelu_inside"))
        self.features.add("layer as activation")
        return keras.layers.LeakyReLU(negative_slope=0.3)

    def regularized(self, *parts):
        """Regularizers and constraints, at times, for weights of these names."""
        options = {}
        for part in parts:
            if self.chance(0.12):
                options[f"{part}_regularizer"] = self.one("l2", keras.regularizers.L1L2(1e-3, 1e-2))
            if self.chance(0.08):
                options[f"{part}_constraint"] = self.one(
                    keras.constraints.MaxNorm(2.0), keras.constraints.UnitNorm(axis=0)
                )
        return options


def _short(value):
    return getattr(value, "__name__", None) or type(value).__name__
