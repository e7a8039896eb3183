"""JAX's convolutions under `patch_jax` against the same without it, by form and at random."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.convolutions import Call, agree, check
from jax import lax

import sepconv

CONFIGURATIONS = 60  # tests/fuzz/convolutions.py tries more

FORWARD, X, KERNEL = "depthwise", "depthwise, input gradient", "depthwise, kernel gradient"
NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")


pytestmark = pytest.mark.usefixtures("quick_jax")


def both(function, *arrays, tolerance=1e-5):
    """Holds a function under the patch against itself without it; returns the patch's record."""
    expected = jax.jit(function)(*arrays)
    with sepconv.patch_jax() as record:
        agree(jax.jit(function)(*arrays), expected, tolerance)
    return record


def test_random_configurations():
    record = check(0, CONFIGURATIONS)
    assert len(record.served) == 6, record  # every form
    assert record.served.total() > CONFIGURATIONS, record
    assert len(record.handed_on) > 5, record


def options(numbers=NHWC, strides=(1, 1), padding="SAME", **others):
    return {
        "window_strides": strides,
        "padding": padding,
        "dimension_numbers": numbers,
        **others,
    }


def depthwise(x, kernel, channels, **others):
    return Call(x, kernel, options(**others, feature_group_count=channels))


def kinds(call, *, dtype="float32", tolerance=1e-5):
    """The forms of a call and of its gradients, which must agree with stock's."""
    return dict(both(call.derived, *call.arrays(0, dtype), tolerance=tolerance).served)


#: A product whose gradients are one call: its matrix is [channels, filters] in memory.
PRODUCT = {"1x1": 1, "1x1, input gradient": 1, "1x1, kernel gradient": 1}

FORMS = {
    "NHWC": (depthwise((2, 9, 8, 6), (3, 3, 1, 6), 6), {FORWARD: 1, X: 1, KERNEL: 1}),
    "NCHW": (
        depthwise((2, 6, 9, 8), (6, 1, 3, 3), 6, numbers=NCHW),
        {FORWARD: 1, X: 1, KERNEL: 1},
    ),
    "stride": (
        depthwise((2, 9, 8, 6), (3, 3, 1, 6), 6, strides=(2, 2)),
        {FORWARD: 1, X: 1, KERNEL: 1},
    ),
    "multiplier": (
        depthwise((2, 9, 8, 3), (3, 3, 1, 6), 3, padding="VALID"),
        {FORWARD: 1, X: 1, KERNEL: 1},
    ),
    "dilated": (
        depthwise((2, 9, 8, 6), (3, 2, 1, 6), 6, rhs_dilation=(2, 3)),
        {FORWARD: 1, X: 1, KERNEL: 1},
    ),
    "width before height": (
        depthwise((2, 9, 8, 6), (6, 2, 3, 1), 6, numbers=("NWHC", "OWHI", "NWHC")),
        {FORWARD: 1, X: 1, KERNEL: 1},
    ),
    "one axis": (
        depthwise((2, 9, 6), (3, 1, 6), 6, strides=(1,), numbers=("NWC", "WIO", "NWC")),
        {FORWARD: 1, X: 1, KERNEL: 1},
    ),
    "one axis, channels first": (
        depthwise((2, 6, 9), (1, 6, 5), 6, strides=(2,), numbers=("NCW", "IOW", "NCW")),
        {FORWARD: 1, X: 1, KERNEL: 1},
    ),
    "one channel": (
        depthwise((2, 1, 9, 8), (4, 1, 3, 3), 1, numbers=NCHW),
        {FORWARD: 1, X: 1, KERNEL: 1},
    ),
    "one image, wherever its axis is": (
        depthwise((9, 8, 1, 6), (3, 3, 1, 6), 6, numbers=("HWNC", "HWIO", "NHWC")),
        {FORWARD: 1, X: 1, KERNEL: 1},
    ),
    "transposed": (
        depthwise((2, 5, 4, 6), (3, 3, 1, 6), 6, padding=((1, 2), (2, 1)), lhs_dilation=(2, 2)),
        {X: 1, FORWARD: 1},
    ),
    "1x1": (
        Call((2, 5, 4, 8), (1, 1, 8, 12), options()),
        PRODUCT,
    ),
    "1x1, NCHW": (
        Call((2, 8, 5, 4), (12, 8, 1, 1), options(NCHW)),
        {"1x1": 2, "1x1, kernel gradient": 1},
    ),
    "1x1, stride": (
        Call((2, 6, 5, 8), (1, 1, 8, 12), options(strides=(2, 2))),
        {"1x1": 2, "1x1, kernel gradient": 1},
    ),
    "1x1, a kernel the other way round": (
        Call((2, 5, 4, 8), (1, 1, 12, 8), options(("NHWC", "HWOI", "NHWC"))),
        {"1x1": 2, "1x1, kernel gradient": 1},
    ),
    "1x1, one axis": (
        Call((2, 5, 8), (1, 8, 12), options(("NWC", "WIO", "NWC"), (1,))),
        PRODUCT,
    ),
    "1x1 on one pixel": (
        Call((3, 1, 1, 8), (1, 1, 8, 12), options()),
        PRODUCT,
    ),
    "1x1, padded": (
        Call((2, 5, 4, 8), (1, 1, 8, 12), options(padding=((1, 0), (0, 2)))),
        {"1x1": 2},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form(form):
    call, expected = FORMS[form]
    assert kinds(call) == expected


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "call",
    [
        depthwise((2, 9, 8, 6), (3, 3, 1, 6), 6, strides=(2, 2)),
        Call((2, 8, 5, 4), (12, 8, 1, 1), options(NCHW)),
        Call((2, 5, 4, 8), (1, 1, 8, 12), options()),
    ],
    ids=["depthwise", "1x1, NCHW", "1x1"],
)
def test_other_dtypes(call, dtype, x64):
    tolerance = {"float64": 1e-13, "float16": 4e-3, "bfloat16": 3e-2}[dtype]
    assert sum(kinds(call, dtype=dtype, tolerance=tolerance).values()) == 3


@pytest.mark.parametrize(
    ("call", "dtype", "reason"),
    [
        (Call((2, 5, 5, 3), (3, 3, 3, 4), options()), "float32", "an ordinary convolution, "),
        (depthwise((2, 5, 5, 4), (3, 3, 2, 4), 2), "float32", "an ordinary convolution in groups"),
        (Call((2, 5, 5, 3), (1, 1, 3, 9), options()), "float32", "fewer than 8 channels"),
        (depthwise((2, 5, 5, 1), (3, 3, 1, 17), 1), "float32", "many filters on one channel"),
        (
            depthwise((2, 5, 5, 4), (3, 3, 1, 4), 4, numbers=("NHWC", "HWIO", "NCHW")),
            "float32",
            "its dimension_numbers",
        ),
        (
            depthwise((2, 5, 5, 4), (3, 3, 1, 4), 4, padding=((-1, 0), (0, 0))),
            "float32",
            "a padding that cuts off",
        ),
        (depthwise((2, 1, 1, 4), (3, 3, 1, 4), 4), "float32", "a kernel larger than its image"),
        (
            Call(
                (2, 5, 5, 8),
                (1, 1, 8, 8),
                options(padding=((1, 1), (0, 0)), strides=(2, 2)),
            ),
            "float32",
            "a 1x1 convolution with stride and padding",
        ),
        (
            depthwise((2, 5, 5, 4), (3, 3, 1, 8), 4, padding=((1, 1), (1, 1)), lhs_dilation=(2, 1)),
            "float32",
            "an input dilation",
        ),
        (
            Call((4, 5, 5, 4), (3, 3, 4, 4), options(batch_group_count=2)),
            "float32",
            "an ordinary convolution in groups",
        ),
        (
            Call(
                (2, 3, 3, 3, 4),
                (1, 1, 1, 1, 4),
                options(("NDHWC", "DHWIO", "NDHWC"), (1,) * 3, feature_group_count=4),
            ),
            "float32",
            "3 axes of space",
        ),
        (depthwise((0, 5, 5, 4), (3, 3, 1, 4), 4), "float32", "an array without elements"),
        (depthwise((2, 5, 5, 4), (3, 3, 1, 4), 4), "int32", "dtype int32"),
        (depthwise((2, 5, 5, 4), (3, 3, 1, 4), 4), "complex64", "dtype complex64"),
        (
            depthwise((2, 5, 5, 4), (3, 3, 1, 4), 4, preferred_element_type=jnp.float32),
            "bfloat16",
            "operands and result of more than one dtype",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_handed_on_bit_for_bit(call, dtype, reason):
    arrays = call.arrays(0, dtype)[:2]
    lowered, expected = jax.jit(call).lower(*arrays).as_text(), jax.jit(call)(*arrays)
    with sepconv.patch_jax() as record:
        assert jax.jit(call).lower(*arrays).as_text() == lowered
        np.testing.assert_array_equal(jax.jit(call)(*arrays), expected)
    assert not record.served
    assert list(record.handed_on.values()) == [1]
    assert reason in next(iter(record.handed_on))
    assert f"by JAX's own rule: {next(iter(record.handed_on))}" in str(record)


# --- JAX's transformations ------------------------------------------------------------------------

CALL = depthwise((2, 7, 6, 8), (3, 3, 1, 8), 8, strides=(2, 1))
PRODUCT = Call((2, 4, 6, 8), (1, 1, 8, 9), options())


def network(x, kernel, matrix):
    return jnp.tanh(PRODUCT(jnp.tanh(CALL(x, kernel)), matrix))


def operands():
    x, kernel, _ = CALL.arrays(0)
    return x, kernel, PRODUCT.arrays(1)[1]


def loss(*arrays):
    return (network(*arrays) ** 2).sum()


def test_second_derivatives():
    def second(*arrays):
        def squares(*arrays):
            gradients = jax.grad(loss, (0, 1, 2))(*arrays)
            return sum((g**2).sum() for g in gradients)

        return jax.grad(squares, (0, 1, 2))(*arrays)

    assert both(second, *operands()).served.total() >= 6


def test_jvp_and_linear_transposition():
    arrays = operands()
    record = both(lambda *a: jax.jvp(network, a, a), *arrays)
    assert set(record.served) == {"depthwise", "1x1"}

    def transposed(dy, kernel):
        return jax.linear_transpose(lambda x: CALL(x, kernel), arrays[0])(dy)

    assert both(transposed, CALL.arrays(0)[2], arrays[1]).served == {X: 1}


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, 0), (0, 0, 0)], ids=str)
def test_vmap_of_gradients(axes):
    arrays = [
        a if axis is None else jnp.stack([a, 2 * a, -a])
        for a, axis in zip(operands(), axes, strict=True)
    ]
    gradients = jax.grad(loss, (0, 1, 2))
    record = both(jax.vmap(gradients, axes), *arrays)
    assert record.served.total() >= 3


def test_remat_and_scan():
    square = depthwise((2, 7, 6, 8), (3, 3, 1, 8), 8)
    x, kernel, _ = square.arrays(0)

    def many(x, kernels):
        def step(x, kernel):
            return jnp.tanh(jax.checkpoint(square)(x, kernel)), x.sum()

        last, sums = jax.lax.scan(step, x, kernels)
        return (last**2).sum() + sums.sum()

    record = both(jax.grad(many, (0, 1)), x, jnp.stack([kernel, -kernel, kernel]))
    assert set(record.served) == {FORWARD, X, KERNEL}
    assert not record.handed_on


def test_custom_rules_and_branches():
    @jax.custom_vjp
    def clipped(x, kernel):
        return CALL(x, kernel)

    def forward(x, kernel):
        y, pull = jax.vjp(CALL, x, kernel)
        return y, pull

    clipped.defvjp(forward, lambda pull, dy: jax.tree.map(lambda g: jnp.clip(g, -1, 1), pull(dy)))

    def either(x, kernel, flag):
        return jax.lax.cond(flag, clipped, lambda *a: 2 * CALL(*a), x, kernel).sum()

    x, kernel, _ = CALL.arrays(0)
    assert set(both(jax.grad(either, (0, 1)), x, kernel, True).served) == {X, KERNEL}


def test_without_jit_and_by_other_names():
    x, kernel, _ = depthwise((2, 6, 9, 8), (6, 1, 3, 3), 6, numbers=NCHW).arrays(0)
    matrix = jnp.ones((8, 8, 1, 1))
    expected = lax.conv(jnp.ones((1, 8, 3, 3)), matrix, (1, 1), "SAME")
    with sepconv.patch_jax() as record:
        agree(lax.conv(jnp.ones((1, 8, 3, 3)), matrix, (1, 1), "SAME"), expected)
        with jax.disable_jit():
            call = functools.partial(lax.conv_general_dilated, feature_group_count=6)
            call(x, kernel, (1, 1), "SAME", dimension_numbers=NCHW)
    assert record.served == {"1x1": 1, FORWARD: 1}
