"""Flax's batch normalization under `patch_jax`: values, derivatives, what is flax's, on and off."""

import sys
from types import SimpleNamespace

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.convolutions import agree
from helpers.jax_versions import since, x64
from helpers.processes import run_on_cpus

import sepconv
from sepconv.engines.jax import flax_patch

linen = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")

SHAPE = (4, 9, 8, 24)
SERVED = {"served": 1}


@pytest.fixture(autouse=True)
def _unpatched():
    theirs = [vars(module).copy() for module in modules()]
    yield
    sepconv.unpatch_jax()
    for before, module in zip(theirs, modules(), strict=True):
        for name in ("_compute_stats", "_normalize"):
            assert getattr(module, name) is before[name]


def modules():
    return [sys.modules[name] for name in flax_patch._KNOWN]


def random(*shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape) * 2 + 1, dtype)


X = random(*SHAPE)


def state_of(layer, x=X):
    """The layer's variables, none of which is 0 or 1."""
    state = layer.init(jax.random.key(0), x)
    return jax.tree.map(
        lambda a: (a + 0.1 * jnp.sin(1.0 + jnp.arange(a.size))).astype(a.dtype), state
    )


def training(layer):
    """From variables and x to the result and the moving moments, by which gradients go as well."""
    return lambda state, x: layer.apply(state, x, mutable="batch_stats")


def loss_of(function):
    def loss(*arrays):
        leaves = jax.tree.leaves(function(*arrays))
        return sum(
            (jnp.sin(leaf) * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum()
            for leaf in leaves
        )

    return loss


def everything(function):
    """Results, gradients in all arrays, and the tangents of both."""

    def evaluate(*arrays):
        both = lambda *a: (function(*a), jax.grad(loss_of(function), (0, 1))(*a))  # noqa: E731
        return jax.jvp(both, arrays, jax.tree.map(jnp.cos, arrays))

    return evaluate


def served(function, *arrays, expected=SERVED, tolerance=1e-5):
    """Compares a function's leaves with and without the patch, each by its largest number."""
    stock = jax.tree.leaves(jax.jit(function)(*arrays))
    with sepconv.patch_jax() as record:
        found = jax.tree.leaves(jax.jit(function)(*arrays))
    # Equal ones are compiled, and counted, once from some version of JAX on.
    assert set(record.normalizations) == set(expected)
    for one, other in zip(found, stock, strict=True):
        assert one.dtype == other.dtype
        scale = float(np.abs(other).max()) + 1e-3
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=tolerance)


# --- What is served -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (SHAPE, {}),
        (SHAPE, {"use_fast_variance": False, "use_scale": False}),
        ((2, 24, 10, 9), {"axis": 1, "use_bias": False}),
        ((40, 120), {"dtype": jnp.float32, "momentum": 0.5}),
    ],
    ids=["NHWC", "centred", "NCHW", "rows"],
)
def test_linen_trains(shape, options):
    layer = linen.BatchNorm(use_running_average=False, **options)
    x = random(*shape)
    served(everything(training(layer)), state_of(layer, x), x)


def test_float64_is_as_precise():
    with x64():
        layer = linen.BatchNorm(use_running_average=False, param_dtype="float64")
        x = random(*SHAPE, dtype="float64")
        state = jax.tree.map(lambda a: jnp.asarray(a, "float64"), state_of(layer, x))
        served(everything(training(layer)), state, x, tolerance=1e-12)


def test_second_derivatives_are_flaxs():
    layer = linen.BatchNorm(use_running_average=False)
    once = jax.grad(loss_of(training(layer)), (0, 1))
    served(jax.grad(loss_of(once), (0, 1)), state_of(layer), X)


def test_moving_moments_that_normalize_are_fixed():
    layer = linen.BatchNorm(use_running_average=True)
    served(everything(layer.apply), state_of(layer), X)


def test_transformations():
    layer = linen.BatchNorm(use_running_average=False)
    state, loss = state_of(layer), loss_of(training(layer))

    def evaluate(state, x):
        several = jnp.stack([x, 2 * x])
        remat = jax.grad(jax.checkpoint(loss), (0, 1))(state, x)
        mapped = jax.vmap(jax.grad(loss, 1), (None, 0))(state, several)
        carried, _ = jax.lax.scan(lambda c, x: (c + jax.grad(loss, 1)(state, x), None), x, several)
        return remat, mapped, carried

    stock = jax.jit(evaluate)(state, X)
    with sepconv.patch_jax() as record:
        agree(jax.jit(evaluate)(state, X), stock)
    assert record.normalizations["served"] >= 1


def test_nnx_trains_and_updates_its_moments():
    graph, state = nnx.split(nnx.BatchNorm(SHAPE[-1], rngs=nnx.Rngs(0)))

    def step(state, x):
        layer = nnx.merge(graph, state)
        loss = nnx.value_and_grad(lambda layer, x: loss_of(layer)(x), argnums=(0, 1))
        return *loss(layer, x), nnx.state(layer, nnx.BatchStat)

    served(step, state, X)


def test_eager_calls_are_served():
    layer = linen.BatchNorm(use_running_average=False)
    state = state_of(layer)
    stock = training(layer)(state, X)
    with sepconv.patch_jax() as record:
        agree(training(layer)(state, X), stock)
    assert record.normalizations == SERVED


def test_what_is_no_number_stays_so():
    layer = linen.BatchNorm(use_running_average=False)
    x = X.at[0, 0, 0, 3].set(jnp.inf).at[0, 0, 0, 5].set(jnp.nan)
    state = state_of(layer)
    stock, _ = jax.jit(training(layer))(state, x)
    with sepconv.patch_jax():
        found, _ = jax.jit(training(layer))(state, x)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(stock))
    assert np.isnan(found).all((0, 1, 2)).nonzero()[0].tolist() == [3, 5]


def test_a_layer_makes_its_parameters_once():
    layer = linen.BatchNorm(use_running_average=False)
    stock = layer.init(jax.random.key(0), X)
    with sepconv.patch_jax():
        jax.tree.map(np.testing.assert_array_equal, layer.init(jax.random.key(0), X), stock)


# --- What is flax's -------------------------------------------------------------------------------

FEATURES = "not one mean for each channel, as in layer or group normalization"
TRAINING = {"use_running_average": False}

HANDED_ON = {
    "layer": (linen.LayerNorm(), X, {}, FEATURES),
    "rows": (linen.LayerNorm(), random(40, 120), {}, FEATURES),
    "group": (linen.GroupNorm(4), X, {}, FEATURES),
    "two axes": (linen.BatchNorm(axis=(1, 3), **TRAINING), X, {}, FEATURES),
    "small": (linen.BatchNorm(**TRAINING), X[:1, :3], {}, "fewer than 4096 elements"),
    "bfloat16": (
        linen.BatchNorm(**TRAINING),
        X.astype("bfloat16"),
        {},
        "arrays of more than one dtype",
    ),
    "result": (
        linen.BatchNorm(dtype="bfloat16", **TRAINING),
        X,
        {},
        "a result of another dtype",
    ),
}


@pytest.mark.parametrize("name", HANDED_ON)
def test_others_are_flaxs_to_the_bit(name):
    layer, x, options, reason = HANDED_ON[name]

    def apply(state, x):
        return layer.apply(state, x, mutable="batch_stats", **options)

    state = layer.init(jax.random.key(0), x)
    stock = jax.jit(apply)(state, x)
    with sepconv.patch_jax() as record:
        found = jax.jit(apply)(state, x)
        text = jax.jit(apply).lower(state, x).as_text()
    jax.tree.map(np.testing.assert_array_equal, found, stock)
    assert set(record.normalizations) == {reason}
    assert "sepconv" not in text


def test_moments_with_a_mask_or_over_an_axis_are_flaxs():
    mask = jnp.arange(SHAPE[0]).reshape(-1, 1, 1, 1) < 3
    layer = linen.BatchNorm(use_running_average=False)
    over = linen.BatchNorm(use_running_average=False, axis_name="batch")
    state = state_of(layer)

    def evaluate(state, x):
        several = jnp.stack([x, 2 * x])
        masked = layer.apply(state, x, mask=mask, mutable="batch_stats")
        mean = jax.vmap(lambda x: training(over)(state, x), axis_name="batch")(several)
        return masked, mean

    stock = jax.jit(evaluate)(state, X)
    with sepconv.patch_jax():
        agree(jax.jit(evaluate)(state, X), stock)
        text = jax.jit(evaluate).lower(state, X).as_text()
    assert "sepconv_moments" not in text


def test_parameters_of_another_dtype_are_flaxs():
    layer = linen.BatchNorm(use_running_average=False, param_dtype="bfloat16")
    expected = {"arrays of more than one dtype": 1}
    served(training(layer), state_of(layer), X, expected=expected)


# --- Programs that are JAX's ----------------------------------------------------------------------

#: Gradients, so that both functions and their gradients are there.
LAYER = linen.BatchNorm(use_running_average=False)


def gradients(state, x):
    return jax.grad(loss_of(training(LAYER)), (0, 1))(state, x)


def test_exports_have_jaxs_own_operations():
    state, function = state_of(LAYER), jax.jit(gradients)
    stock = jax.export.export(function)(state, X).call(state, X)
    with sepconv.patch_jax() as record:
        exported = jax.export.export(function)(state, X)
        several = function.trace(state, X).lower(lowering_platforms=("cpu", "cuda"))
        assert "sepconv_batch_norm_sums" in function.lower(state, X).as_text()
        (symbolic,) = jax.export.symbolic_shape("n")
        shape = jax.ShapeDtypeStruct((symbolic, *SHAPE[1:]), jnp.float32)
        unknown = jax.export.export(function)(state, shape)
    assert record.normalizations == {
        "the program is exported": 1,
        "the program is lowered for several platforms": 1,
        "sizes that are not known": 1,
        **SERVED,
    }
    for text in (exported.mlir_module(), several.as_text(), unknown.mlir_module()):
        assert "custom_call @sepconv" not in text
    agree(exported.call(state, X), stock)


@since("0.7.2", "jax.set_mesh")
def test_arrays_with_a_sharding_in_their_type_are_flaxs():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    state = state_of(LAYER)
    with sepconv.patch_jax() as record, jax.set_mesh(mesh):
        x = jax.device_put(X, jax.sharding.NamedSharding(mesh, jax.P("data")))
        jax.jit(training(LAYER))(state, x)
    assert record.normalizations == {"arrays with a sharding in their type": 1}


DEVICES = """
import jax, jax.numpy as jnp, numpy as np, sepconv, flax.linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

assert jax.device_count() == 2
layer = nn.BatchNorm(use_running_average=False)
x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 9, 8, 24)), "float32")
state = layer.init(jax.random.key(0), x)
sharded = jax.device_put(x, NamedSharding(Mesh(np.array(jax.devices()), ("data",)), P("data")))

@jax.jit
def gradients(state, x):
    def loss(state, x):
        y, moving = layer.apply(state, x, mutable="batch_stats")
        return (jnp.sin(y) * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum(), (y, moving)
    return jax.grad(loss, (0, 1), has_aux=True)(state, x)

def apart(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

expected = gradients(state, sharded)
whole = gradients(state, x)
with sepconv.patch_jax() as record:
    apart(gradients(state, sharded), expected)
    assert "custom_call @sepconv" not in gradients.lower(state, sharded).as_text()
    assert "served" not in record.normalizations
    assert set(record.normalizations) <= {
        "the program is spread over devices", "arrays with a sharding in their type"
    }, record
    apart(gradients(state, x), whole)
    assert record.normalizations["served"] == 1
"""

LATER = """
import sys
import sepconv
record = sepconv.patch_jax()
assert "flax" not in sys.modules
import jax, jax.numpy as jnp
import flax.linen as nn
layer = nn.BatchNorm(use_running_average=False)
x = jnp.ones((8, 16, 16, 8))
layer.init_with_output(jax.random.key(0), x)
assert record.normalizations["served"] == 1, record
from flax import nnx
nnx.BatchNorm(8, rngs=nnx.Rngs(0))(x[:4])
assert record.normalizations["served"] == 2, record
sepconv.unpatch_jax()
for module in (sys.modules["flax.linen.normalization"], sys.modules["flax.nnx.nn.normalization"]):
    assert not hasattr(module._normalize, "__wrapped__")
"""

NEVER = """
import sepconv
with sepconv.patch_jax() as record:
    pass
import jax, jax.numpy as jnp
import flax.linen as nn
nn.BatchNorm(use_running_average=False).init_with_output(jax.random.key(0), jnp.ones((8, 32, 32)))
assert not record.normalizations
assert not hasattr(nn.normalization._normalize, "__wrapped__")
"""


@pytest.mark.parametrize(
    ("script", "devices"),
    [(DEVICES, 2), (LATER, 1), (NEVER, 1)],
    ids=["devices", "flax comes later", "flax comes after the patch"],
)
def test_in_a_process_of_its_own(script, devices):
    run_on_cpus(script, devices)


# --- On and off -----------------------------------------------------------------------------------


def test_what_was_compiled_before_is_compiled_again_both_ways():
    function, state = jax.jit(training(LAYER)), state_of(LAYER)
    for _ in range(2):
        assert "sepconv" not in function.lower(state, X).as_text()
        with sepconv.patch_jax():
            assert "sepconv" in function.lower(state, X).as_text()


def test_the_record_tells_of_normalizations():
    state = state_of(LAYER)
    with sepconv.patch_jax() as record:
        jax.jit(training(LAYER))(state, X)
        linen.LayerNorm().init(jax.random.key(0), X)
    assert str(record).splitlines()[1:] == [
        "1 of 2 normalizations of flax served",
        f"    1  by flax: {FEATURES}",
    ]


def test_a_function_that_others_put_over_ours_stays_and_reaches_flax():
    module, state = modules()[0], state_of(LAYER)
    with sepconv.patch_jax():
        ours = module._normalize

        def theirs(*args, **kwargs):
            return ours(*args, **kwargs)

        stock = ours.__wrapped__
        module._normalize = theirs
    try:
        assert module._normalize is theirs
        assert "sepconv" not in jax.jit(training(LAYER)).lower(state, X).as_text()
    finally:
        module._normalize = stock


def test_an_unknown_flax_is_a_warning_in_one_sentence(monkeypatch):
    def _normalize(x, something):
        """As no version of flax has it."""

    for module in modules():
        monkeypatch.setattr(module, "_normalize", _normalize)
    with pytest.warns(RuntimeWarning, match=r"^patch_jax\(\) does not know how flax \d\S* normal"):
        sepconv.patch_jax()
    assert all(module._normalize is _normalize for module in modules())
    sepconv.unpatch_jax()
    monkeypatch.setattr(flax_patch, "sys", SimpleNamespace(modules={}))
    sepconv.patch_jax()  # flax's modules are gone again
    sepconv.unpatch_jax()
