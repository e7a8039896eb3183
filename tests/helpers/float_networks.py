"""Networks of float with random weights, and data for them, for tests of quantisation."""

from __future__ import annotations

import math

import numpy as np

from sepconv.geometry import conv_spec
from sepconv.program.building.builder import Builder
from sepconv.program.network import Input, Network


class Drawn(Builder):
    """A network of float with random weights, on images of 10 by 9 pixels."""

    def __init__(self, channels=8, shape=None):
        super().__init__("float32", [Input("x", shape or (None, 10, 9, channels))])
        self.rng = np.random.default_rng(3)

    def weights(self, *shape):
        return self.rng.standard_normal(shape) / math.sqrt(math.prod(shape[:-1]))

    def separable(self, x, filters, residual=None, middle="relu6", activation="relu", **options):
        channels = self.shapes[x][-1]
        self.name = f"separable {len(self.steps)}"
        weights = {
            "depthwise_kernel": self.rng.standard_normal((3, 3, channels, 1)) / 3,
            "depthwise_bias": self.rng.standard_normal(channels) / 4,
            "pointwise_kernel": self.weights(1, 1, channels, filters),
            "bias": self.rng.standard_normal(filters) / 4,
        }
        given = {"depthwise_activation": middle, "activation": activation}
        spec = conv_spec(**{"padding": "same", **options})
        inputs = [x] if residual is None else [x, residual]
        return self.emit("convolution", inputs, {"spec": spec, **given}, weights)

    def ordinary(self, x, filters, size=3, activation="relu", **options):
        self.name = f"ordinary {len(self.steps)}"
        weights = {
            "pointwise_kernel": self.weights(size, size, self.shapes[x][-1], filters),
            "bias": self.rng.standard_normal(filters) / 4,
        }
        given = {"depthwise_activation": "none", "activation": activation}
        spec = conv_spec(**{"padding": "same", **options})
        return self.emit("convolution", [x], {"spec": spec, **given}, weights)

    def depthwise(self, x, activation="relu", **options):
        self.name = f"depthwise {len(self.steps)}"
        weights = {"depthwise_kernel": self.rng.standard_normal((3, 3, self.shapes[x][-1], 1)) / 3}
        given = {"depthwise_activation": "none", "activation": activation}
        spec = conv_spec(**{"padding": "same", **options})
        return self.emit("convolution", [x], {"spec": spec, **given}, weights)

    def dense(self, x, units, activation="none"):
        self.name = f"dense {len(self.steps)}"
        weights = {"kernel": self.weights(self.shapes[x][-1], units)}
        return self.emit("dense", [x], {"activation": activation}, weights)

    def network(self, *outputs):
        names = [f"y{i}" for i in range(len(outputs))]
        return Network("float32", self.inputs, self.steps, list(outputs), names, self.tensors)


def data(network, examples=4):
    rng = np.random.default_rng(0)
    shape = [examples if size is None else size for size in network.inputs[0].shape]
    return rng.standard_normal(shape).astype("float32")
