"""What benchmarks may ask of a forward pass against its plan: it is done, and results are right."""

from __future__ import annotations

import numpy as np
import pytest

from sepconv import _native, reference
from sepconv.geometry import conv_spec, resolve

F32 = 0
KERNELS = ("flat", "planar", "small", "channelwise")
SCHEDULES = ("steps", "tiles", "parts")

# x, depthwise kernel, strides, dilation, data format
LAYERS = (
    ((1, 14, 14, 96), (3, 3, 96, 1), 1, 1, "channels_last"),
    ((2, 13, 17, 40), (3, 3, 40, 1), 2, 1, "channels_last"),
    ((1, 40, 31, 24), (5, 3, 24, 2), 1, 2, "channels_last"),
    ((1, 1, 300, 64), (1, 3, 64, 1), 1, 4, "channels_last"),
    ((3, 9, 20, 5), (4, 4, 5, 1), 1, 1, "channels_last"),
    ((2, 12, 15, 48), (7, 7, 48, 1), 3, 1, "channels_last"),
    ((2, 48, 12, 15), (3, 3, 48, 1), 1, 1, "channels_first"),
)


@pytest.fixture(params=LAYERS, ids=lambda layer: "x".join(map(str, layer[0] + layer[1])))
def layer(request):
    x_shape, kernel_shape, strides, dilation, data_format = request.param
    rng = np.random.default_rng(0)
    options = {
        "strides": strides,
        "padding": "same",
        "dilation_rate": dilation,
        "data_format": data_format,
    }
    spec = conv_spec(*options.values())
    x = rng.standard_normal(x_shape).astype("float32")
    kernel = rng.standard_normal(kernel_shape).astype("float32")
    return x, kernel, resolve(spec, x_shape, kernel_shape), options


def run(layer, overrule, mixing=None):
    x, kernel, geometry, _ = layer
    filters = 0 if mixing is None else mixing.shape[1]
    y = np.empty(geometry.output_shape(filters or geometry.depthwise_channels), "float32")
    _native.forward(geometry, F32, x, kernel, None, mixing, None, None, y, filters, 0, 0, overrule)
    return y


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels(layer, kernel):
    x, weights, geometry, options = layer
    overrule = (kernel, "chosen")
    (step,) = _native.plan(geometry, F32, "forward", 2, overrule=overrule)["steps"]
    (chosen,) = _native.plan(geometry, F32, "forward", 2)["steps"]
    assert step["kernel"] in (kernel, chosen["kernel"])
    expected = reference.depthwise_conv2d(x, weights, **options)
    np.testing.assert_allclose(run(layer, overrule), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_forms(layer, schedule):
    x, weights, geometry, options = layer
    middle = geometry.depthwise_channels
    mixing = np.random.default_rng(1).standard_normal((middle, 24)).astype("float32")
    overrule = ("none", schedule)
    steps = _native.plan(geometry, F32, "forward", 2, 24, overrule=overrule)["steps"]
    taken = "steps" if len(steps) == 2 else steps[0]["kind"].removeprefix("fused_")
    assert taken == schedule or schedule == "parts"
    expected = reference.separable_conv2d(x, weights, mixing.reshape(1, 1, middle, 24), **options)
    np.testing.assert_allclose(run(layer, overrule, mixing), expected, rtol=1e-4, atol=1e-3)


def test_every_kernel_and_form_is_taken_somewhere():
    geometry = resolve(conv_spec(padding="same"), (1, 14, 14, 96), (3, 3, 96, 1))
    for kernel in KERNELS:
        plan = _native.plan(geometry, F32, "forward", 2, overrule=(kernel, "chosen"))
        assert plan["steps"][0]["kernel"] == kernel
    plan = _native.plan(geometry, F32, "forward", 2, 24, overrule=("none", "parts"))
    assert plan["steps"][0]["kind"] == "fused_parts"


def test_what_is_no_kernel_or_form_is_named(layer):
    for overrule, message in (
        (("smal", "chosen"), "no such kernel. Received: smal"),
        (("none", "tile"), "no such schedule. Received: tile"),
    ):
        with pytest.raises(ValueError, match=message):
            run(layer, overrule)
