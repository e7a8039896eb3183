"""Both gradients of a convolution by one call under `patch_jax`, and derivatives of these."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.convolutions import agree
from jax import lax
from jax.interpreters import ad

import sepconv

NHWC = ("NHWC", "HWIO", "NHWC")
RULE = ad.primitive_jvps[lax.conv_general_dilated_p]
GRADIENTS = {
    f"{kind}{which}": 1
    for kind in ("depthwise", "1x1")
    for which in ("", ", input gradient", ", kernel gradient")
}


@pytest.fixture(autouse=True)
def _rule(quick_jax):
    yield
    sepconv.unpatch_jax()
    assert ad.primitive_jvps[lax.conv_general_dilated_p] is RULE


def random(*shape):
    return jnp.asarray(np.random.default_rng(len(shape) + shape[0]).standard_normal(shape), "f4")


KERNELS = random(3, 3, 1, 8), random(1, 1, 8, 12)
X = random(2, 6, 5, 8)


def network(kernels, x):
    """A depthwise convolution by the stride 2 and a 1x1 one."""
    depthwise, pointwise = kernels
    x = jnp.sin(x)  # so that second derivatives have both operands
    x = lax.conv_general_dilated(
        x, depthwise, (2, 2), "SAME", dimension_numbers=NHWC, feature_group_count=8
    )
    return lax.conv_general_dilated(jnp.cos(x), pointwise, (1, 1), "SAME", dimension_numbers=NHWC)


def loss(kernels, x):
    return jnp.sin(network(kernels, x)).sum()


gradients = jax.grad(loss, (0, 1))


def both(function, *arrays):
    """Holds a function under the patch against itself without it; the record, and the program."""
    expected = jax.jit(function)(*arrays)
    with sepconv.patch_jax() as record:
        compiled = jax.jit(function)
        agree(compiled(*arrays), expected)
        return record, compiled.lower(*arrays).as_text()


def test_one_call_makes_both_gradients():
    record, text = both(gradients, KERNELS, X)
    assert record.served == GRADIENTS
    assert text.count("@sepconv_backward") == text.count("@sepconv_pointwise_backward") == 1
    assert "stablehlo.convolution" not in text


def test_gradients_of_one_operand_are_apart():
    _, text = both(jax.grad(loss, 1), KERNELS, X)
    assert text.count("@sepconv_backward") == 1
    frozen, _ = both(jax.grad(lambda k: loss((k, KERNELS[1]), X)), KERNELS[0])
    assert "depthwise, kernel gradient" in frozen.served
    assert (
        "depthwise, input gradient" not in both(jax.grad(lambda k: loss(k, X)), KERNELS)[0].served
    )


def test_second_derivatives():
    once = lambda *a: sum(jnp.sin(g).sum() for g in jax.tree.leaves(gradients(*a)))  # noqa: E731
    both(jax.grad(once, (0, 1)), KERNELS, X)
    # And of the gradients in the result's gradient alone.
    dy = jnp.ones((2, 3, 3, 12))

    def pulled(dy):
        return jax.vjp(network, KERNELS, X)[1](dy)

    both(jax.grad(lambda dy: sum((g**2).sum() for g in jax.tree.leaves(pulled(dy)))), dy)
    both(jax.grad(lambda dy: (pulled(dy)[1] ** 2).sum()), dy)
    both(jax.grad(lambda dy: (pulled(dy)[0][0] ** 2).sum()), dy)


def test_tangents():
    moving = jax.tree.map(jnp.cos, (KERNELS, X))
    both(lambda *a: jax.jvp(network, a, moving), KERNELS, X)
    both(lambda *a: jax.jvp(gradients, a, moving), KERNELS, X)
    both(lambda *a: jax.linearize(network, *a)[1](*moving), KERNELS, X)


def test_transformations():
    several = jnp.stack([X, 2 * X])
    both(lambda k, x: jax.grad(jax.checkpoint(loss), (0, 1))(k, x), KERNELS, X)
    both(lambda k, x: jax.vmap(gradients, (None, 0))(k, x), KERNELS, several)
    both(
        lambda k, x: jax.grad(lambda *a: jax.vmap(loss, (None, 0))(*a).sum())(k, x),
        KERNELS,
        several,
    )

    def step(kernels, x):
        moved = jax.tree.map(lambda k, g: k - 0.01 * g, kernels, gradients(kernels, x)[0])
        return moved, loss(moved, x)

    both(lambda k, x: lax.scan(step, k, x), KERNELS, several)


def test_eager_calls():
    expected = gradients(KERNELS, X)
    with sepconv.patch_jax() as record:
        agree(gradients(KERNELS, X), expected)
    assert record.served == GRADIENTS


def test_what_was_traced_under_a_patch_is_jaxs_after_it():
    with sepconv.patch_jax():
        traced = jax.make_jaxpr(gradients)(KERNELS, X)
    assert "sepconv_convolution_gradients" in str(traced)
    evaluate = jax.jit(lambda *a: jax.core.eval_jaxpr(traced.jaxpr, traced.consts, *a))
    assert "sepconv" not in evaluate.lower(*KERNELS, X).as_text()
    agree(evaluate(*KERNELS, X), jax.tree.leaves(gradients(KERNELS, X)))


def test_exports_have_jaxs_own_operations():
    function = jax.jit(gradients)
    stock = jax.export.export(function)(KERNELS, X)
    with sepconv.patch_jax() as record:
        exported = jax.export.export(function)(KERNELS, X)
    assert not record.served
    assert set(record.handed_on) == {"the program is exported"}
    assert "custom_call @sepconv" not in exported.mlir_module()
    for one, other in zip(
        *(jax.tree.leaves(e.call(KERNELS, X)) for e in (exported, stock)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_rule_that_someone_else_puts_over_ours_stays():
    primitive = lax.conv_general_dilated_p
    expected = gradients(KERNELS, X)
    try:
        with sepconv.patch_jax():
            ours = ad.primitive_jvps[primitive]
            theirs = lambda *a, **k: ours(*a, **k)  # noqa: E731
            ad.primitive_jvps[primitive] = theirs
        assert ad.primitive_jvps[primitive] is theirs
        agree(gradients(KERNELS, X), expected)  # ours hands on
        with sepconv.patch_jax() as record:
            assert ad.primitive_jvps[primitive] is theirs
            agree(gradients(KERNELS, X), expected)
        assert record.served == GRADIENTS
    finally:
        ad.primitive_jvps[primitive] = ours
        sepconv.patch_jax()
        sepconv.unpatch_jax()
