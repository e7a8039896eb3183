"""Mistakes raise when a function of sepconv.jax is traced, with the argument named."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sepconv.jax

X = jnp.ones((2, 8, 8, 3))
KERNEL = jnp.ones((3, 3, 3, 2))
POINTWISE = jnp.ones((1, 1, 6, 5))

MISTAKES = [
    (ValueError, "x must have 4 axes", (X[0], KERNEL, POINTWISE), {}),
    (ValueError, "depthwise_kernel must have 4 axes", (X, KERNEL[0], POINTWISE), {}),
    (ValueError, "input's channels", (X[..., :2], KERNEL, POINTWISE), {}),
    (ValueError, "pointwise_kernel must have the shape", (X, KERNEL, POINTWISE[:, :, :5]), {}),
    (ValueError, "bias must have the shape", (X, KERNEL, POINTWISE, jnp.ones(6)), {}),
    (ValueError, "output would be empty", (X[:, :2], KERNEL, POINTWISE), {}),
    (ValueError, "strides must be positive", (X, KERNEL, POINTWISE), {"strides": 0}),
    (ValueError, "padding must be", (X, KERNEL, POINTWISE), {"padding": "full"}),
    (ValueError, "data_format must be", (X, KERNEL, POINTWISE), {"data_format": "NHWC"}),
    (ValueError, "activation must be", (X, KERNEL, POINTWISE), {"activation": "gelu"}),
    (TypeError, "must be of one of the dtypes", (X.astype(jnp.int32), KERNEL, POINTWISE), {}),
    (TypeError, "must have the dtype of x", (X, KERNEL.astype(jnp.float16), POINTWISE), {}),
]


@pytest.mark.parametrize(("error", "message", "arrays", "options"), MISTAKES)
def test_mistakes_raise_at_trace_time(error, message, arrays, options):
    def function(*arrays):
        return sepconv.jax.separable_conv2d(*arrays, **options)

    for call in (function, jax.jit(function)):
        with pytest.raises(error, match=message):
            call(*arrays)
    with pytest.raises(error, match=message):
        jax.eval_shape(function, *arrays)


def call_forward(x, kernel, y, rest=(), **changes):
    """Calls the handler past every check in Python."""
    attributes = {
        "spec": np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], np.int64),
        "operands": np.int64(3 + 4 * len(rest)),
        "activation": np.int64(0),
        "depthwise_activation": np.int64(0),
        **changes,
    }
    return jax.ffi.ffi_call("sepconv_forward", y)(x, kernel, *rest, **attributes)


WRONG_CALLS = [
    ("input's channels", (X[..., :2], KERNEL, jax.ShapeDtypeStruct((2, 6, 6, 4), "float32")), {}),
    ("y: 432 elements", (X, KERNEL, jax.ShapeDtypeStruct((2, 6, 6, 5), "float32")), {}),
    ("must have 4 axes", (X, KERNEL, jax.ShapeDtypeStruct((2, 6, 36), "float32")), {}),
    ("must have 4 axes", (X[0], KERNEL, jax.ShapeDtypeStruct((2, 6, 6, 6), "float32")), {}),
    (
        "float32, float64, bfloat16 or float16",
        (X.astype(jnp.int32), KERNEL, jax.ShapeDtypeStruct((2, 6, 6, 6), "float32")),
        {},
    ),
    (
        "operand is missing",
        (X, KERNEL, jax.ShapeDtypeStruct((2, 6, 6, 6), "float32")),
        {"operands": np.int64(15)},
    ),
    (
        "activation",
        (X, KERNEL, jax.ShapeDtypeStruct((2, 6, 6, 6), "float32")),
        {"activation": np.int64(9)},
    ),
]


@pytest.mark.parametrize(("message", "arguments", "changes"), WRONG_CALLS)
def test_the_handler_refuses_what_does_not_fit(message, arguments, changes):
    with pytest.raises(Exception, match=f"INVALID_ARGUMENT.*{message}"):
        jax.block_until_ready(call_forward(*arguments, **changes))


def test_a_program_with_an_older_order_of_operands_is_refused():
    """The bits that say which operands there are had another order, and the attribute a name."""
    attributes = {
        "spec": np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], np.int64),
        "given": np.int64(3),
        "activation": np.int64(0),
        "depthwise_activation": np.int64(0),
    }
    y = jax.ShapeDtypeStruct((2, 6, 6, 6), "float32")
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        jax.block_until_ready(jax.ffi.ffi_call("sepconv_forward", y)(X, KERNEL, **attributes))


def test_a_build_without_jaxlib_says_how_to_mend_it():
    script = """
import sys
sys.modules["sepconv._xla"] = None  # as if it had not been built
try:
    import sepconv.jax
except ImportError as error:
    assert "Install jaxlib and build sepconv again" in str(error), error
else:
    raise AssertionError
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
