"""What sepconv.jax compiles to, here and for other platforms, and how it runs there."""

import re
import threading

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.configurations import normal

import sepconv
import sepconv.jax
from sepconv.engines.jax import block
from sepconv.engines.jax import composed as bilinear
from sepconv.engines.jax import convolution as engine
from sepconv.fused import BlockSpec
from sepconv.geometry import conv_spec

pytestmark = pytest.mark.usefixtures("x64")


def loss(x, kernel, pointwise, bias):
    y = sepconv.jax.separable_conv2d(x, kernel, pointwise, bias, activation="relu", padding="same")
    return (y * y).sum()


OPERANDS = (normal(0, 2, 8, 9, 4), normal(1, 3, 3, 4, 2), normal(2, 1, 1, 8, 6), normal(3, 6))
GRADIENT = jax.grad(loss, (0, 1, 2, 3))


def custom_calls(text):
    return sorted(re.findall(r'custom_call @(\w+)|custom_call_target="(\w+)"', text))


def test_a_training_step_is_two_custom_calls_and_nothing_of_python():
    lowered = jax.jit(GRADIENT).lower(*OPERANDS)
    assert custom_calls(lowered.as_text()) == [("sepconv_backward", ""), ("sepconv_forward", "")]
    compiled = lowered.compile().as_text()
    assert custom_calls(compiled) == [("", "sepconv_backward"), ("", "sepconv_forward")]
    assert "callback" not in lowered.as_text() + compiled
    assert "convolution(" not in compiled


def test_no_copy_of_an_array():
    compiled = jax.jit(sepconv.jax.separable_conv2d).lower(*OPERANDS).compile()
    assert not re.search(r"\b(copy|transpose|bitcast-convert)\(", compiled.as_text())
    assert compiled.memory_analysis().temp_size_in_bytes == 0


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_a_convolution_of_their_own(platform):
    for function in (loss, GRADIENT, jax.grad(lambda *a: sum(g.sum() for g in GRADIENT(*a)))):
        traced = jax.jit(function).trace(*OPERANDS)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.convolution" in text
        assert "custom_call @sepconv" not in text


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["valid", "same", ((2, 0), (1, 3))])
@pytest.mark.parametrize("strides", [(1, 1), (3, 2)])
def test_values_of_what_other_platforms_get(strides, padding, data_format):
    spec = conv_spec(strides, padding, (1, 2), data_format)
    x, kernel = normal(0, 2, 8, 9, 4), normal(1, 3, 2, 4, 2)
    if data_format == "channels_first":
        x = x.transpose(0, 3, 1, 2)
    y = bilinear.lax_depthwise(x, kernel, spec=spec)
    options = {"strides": strides, "padding": padding, "dilation_rate": (1, 2)}
    options["data_format"] = data_format
    expected = sepconv.reference.depthwise_conv2d(x, kernel, **options)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    dy = normal(2, *y.shape)
    gradients = sepconv.reference.depthwise_conv2d_grad(x, kernel, dy, **options)
    size = bilinear.spatial_size(x.shape, spec)
    dx = bilinear.lax_input_gradient(dy, kernel, spec=spec, size=size)
    dkernel = bilinear.lax_kernel_gradient(x, dy, spec=spec, kernel_size=(3, 2))
    np.testing.assert_allclose(dx, gradients.x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dkernel, gradients.depthwise_kernel, rtol=1e-12, atol=1e-12)


def test_values_of_the_compositions():
    """Of what the fused primitives become where they cannot be one call."""
    x, kernel, pointwise, _ = OPERANDS
    spec = conv_spec(padding="same")
    for activation, code in ((None, 0), ("relu", 1), ("relu6", 2)):
        given = (True, True, False, True, True, False)
        y = block._composed(*OPERANDS, params=block._Params(BlockSpec(spec, 0, code), given))
        options = {"padding": "same", "activation": activation}
        expected = sepconv.reference.separable_conv2d(*OPERANDS, **options)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    dy = normal(4, *y.shape)
    params = engine._Linear(spec, (8, 9), (3, 3, 4, 2), True, (True,) * 4)
    found = engine._composed_backward(x, kernel, pointwise, dy, params=params)
    expected = sepconv.reference.separable_conv2d_grad(x, kernel, pointwise, dy, padding="same")
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


def test_export_and_back():
    pytest.importorskip("flatbuffers")  # JAX writes with it what it exports
    exported = jax.export.export(
        jax.jit(sepconv.jax.separable_conv2d),
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("sepconv_forward")],
    )(*OPERANDS)
    again = jax.export.deserialize(exported.serialize())
    np.testing.assert_array_equal(again.call(*OPERANDS), sepconv.jax.separable_conv2d(*OPERANDS))


def test_symbolic_sizes():
    """Keras traces with symbols for what is None in an input's shape."""
    batch, size = jax.export.symbolic_shape("b, s", constraints=["s >= 8"])
    _, kernel, pointwise, bias = OPERANDS
    x = jax.ShapeDtypeStruct((batch, size, size, 4), jnp.float64)
    for padding, expected in (("valid", (size - 3) // 2 + 1), ("same", (size + 1) // 2)):
        y = jax.eval_shape(
            lambda x, padding=padding: sepconv.jax.separable_conv2d(
                x, kernel, pointwise, bias, strides=2, padding=padding
            ),
            x,
        )
        assert y.shape == (batch, expected, expected, 6)
    with pytest.raises(ValueError, match="input's channels"):
        jax.eval_shape(lambda x: sepconv.jax.depthwise_conv2d(x, kernel[:, :, :3]), x)


def test_export_for_any_batch():
    (batch,) = jax.export.symbolic_shape("b")
    names = ("sepconv_forward", "sepconv_backward")
    exported = jax.export.export(
        jax.jit(GRADIENT),
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(name) for name in names],
    )(jax.ShapeDtypeStruct((batch, 8, 9, 4), jnp.float64), *OPERANDS[1:])
    x = normal(7, 5, 8, 9, 4)
    found, expected = exported.call(x, *OPERANDS[1:]), GRADIENT(x, *OPERANDS[1:])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_many_calls_at_once_end_and_agree():
    """Python threads, and within each a program of independent convolutions, share XLA's pool."""
    x, kernels = normal(0, 4, 32, 32, 16), normal(1, 8, 3, 3, 16, 2)
    x, kernels = x.astype(np.float32), kernels.astype(np.float32)

    @jax.jit
    def program(x, kernels):
        return sum(sepconv.jax.depthwise_conv2d(x, kernel) for kernel in kernels)

    expected = np.asarray(program(x, kernels))
    results = []

    def work():
        results.extend(np.asarray(program(x, kernels)) for _ in range(5))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    assert len(results) == 30
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_results_do_not_depend_on_the_number_of_threads():
    gradient = jax.jit(GRADIENT)
    threads = sepconv.num_threads()
    many = gradient(*OPERANDS)
    try:
        sepconv.set_num_threads(1)
        one = gradient(*OPERANDS)
    finally:
        sepconv.set_num_threads(threads)
    for a, b in zip(many, one, strict=True):
        np.testing.assert_array_equal(a, b)


def test_symbolic_zeros_cost_nothing():
    """A tangent of zero is not computed with."""
    x, kernel, pointwise, bias = OPERANDS
    program = jax.make_jaxpr(
        lambda x, t: jax.jvp(
            lambda x: sepconv.jax.separable_conv2d(x, kernel, pointwise, bias), (x,), (t,)
        )
    )(x, jnp.ones_like(x))
    (tangent,) = [e for e in program.eqns if e.primitive.name == "sepconv_tangent"]
    assert tangent.params["params"].wanted == (True, False, False, False)
    assert len(tangent.invars) == 3  # the two kernels and the one tangent; not x
