"""A program on JAX arrays: under jit, vmap, scan; no gradient, no export."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import programs

import sepconv.jax
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program

run = sepconv.jax.run_program


def made(*shapes, steps=None):
    """A program of several inputs: their sums of squares over the last axis, and the first one."""
    square = {"function": "square", "a": 0.0, "b": 0.0, "c": 0.0}
    total = {"function": "sum", "axes": [len(shapes[0]) - 1], "keepdims": False}
    inputs = [Input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    chain = [Step("unary", "square", [0], square), Step("reduce", "sum", [len(shapes)], total)]
    outputs = [len(shapes) + 1, 0]
    return Program(Network("float32", inputs, chain, outputs, ["sum", "same"], []))


@pytest.fixture(scope="module")
def program():
    every = programs.every_operation()
    return Program(every._replace(outputs=every.outputs[:1], output_names=every.output_names[:1]))


def image(batch=2, *more):
    return np.random.default_rng(0).normal(size=(*more, batch, 8, 8, 3)).astype("float32")


def results(found):
    return [np.asarray(y) for y in (found if isinstance(found, tuple) else (found,))]


def test_at_once_and_compiled(program):
    for batch in (1, 3):
        x = image(batch)
        expected = results(program(x))
        for found in (run(program, x), jax.jit(lambda x: run(program, x))(x)):
            for one, other in zip(results(found), expected, strict=True):
                np.testing.assert_array_equal(one, other)
    pixels = (image() * 9).astype("int8")
    for one, other in zip(results(run(program, pixels)), results(program(pixels)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_large_arrays_within_a_compiled_function():
    program = made((None, 1 << 20))
    x = np.ones((4, 1 << 20), "float32")
    total, same = jax.jit(lambda x: run(program, jnp.sin(x) * 0 + x))(x)
    np.testing.assert_array_equal(total, np.full(4, 1 << 20, "float32"))
    np.testing.assert_array_equal(same, x)


def test_vmap_joins_the_batch_or_goes_through(program):
    x = image(2, 3)
    (found,) = results(jax.vmap(lambda x: run(program, x))(x))
    for one, given in zip(found, x, strict=True):
        np.testing.assert_allclose(one, results(program(given))[0], rtol=1e-5, atol=1e-5)
    joined = str(jax.make_jaxpr(jax.vmap(lambda x: run(program, x)))(x))
    assert joined.count("sepconv_program") == 1
    assert "scan" not in joined
    # Of a fixed batch, one after the other; what is not mapped is repeated.
    fixed = made((2, 3), (2, 3))
    a, b = image(2)[:, 0, :4], np.ones((2, 3), "float32")
    total, same = jax.vmap(lambda a: run(fixed, a, b))(a.transpose(1, 0, 2))
    np.testing.assert_array_equal(same, a.transpose(1, 0, 2))
    np.testing.assert_allclose(total, (a**2).sum(-1).T, rtol=1e-6)


def test_scan(program):
    x = image(2, 3)
    _, found = jax.lax.scan(lambda state, x: (state, run(program, x)), 0, x)
    for one, given in zip(results(found)[0], x, strict=True):
        np.testing.assert_array_equal(one, results(program(given))[0])


def test_no_gradient():
    program = made((None, 3))

    def total(x):
        return run(program, x)[0].sum()

    with pytest.raises(ValueError, match="it has no gradient"):
        jax.grad(total)(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="it has no gradient"):
        jax.jit(jax.grad(total))(jnp.ones((2, 3)))
    stopped = jax.grad(lambda x: x.sum() + total(jax.lax.stop_gradient(x)))(jnp.ones((2, 3)))
    assert (stopped == 1).all()


def test_errors(program):
    with pytest.raises(TypeError, match="Received: int"):
        run(3, image())
    with pytest.raises(ValueError, match="shape"):
        jax.jit(lambda x: run(program, x))(image()[..., :2])
    with pytest.raises(ValueError, match="cannot be exported"):
        jax.export.export(jax.jit(lambda x: run(program, x)))(image())
    batch, size = jax.export.symbolic_shape("b, n")
    symbols = jax.ShapeDtypeStruct((batch, size, 8, 3), "float32")
    with pytest.raises(ValueError, match="but for the batch"):
        jax.eval_shape(lambda x: run(program, x), symbols)
    known = jax.ShapeDtypeStruct((batch, 8, 8, 3), "float32")
    assert jax.eval_shape(lambda x: run(program, x), known).shape[0] == batch


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_machine_with_one_core_does_not_wait_for_ever():
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp, numpy as np, sepconv.jax
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program
step = Step("unary", "abs", [0], {"function": "abs", "a": 0.0, "b": 0.0, "c": 0.0})
program = Program(Network("float32", [Input("x", (None, 1 << 20))], [step], [1], ["y"], []))
run = jax.jit(lambda x: sepconv.jax.run_program(program, jnp.sin(x) - 3))
for _ in range(3):
    y = run(np.ones((4, 1 << 20), "float32"))
print(round(float(y[0, 0]), 4))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "2.1585"
