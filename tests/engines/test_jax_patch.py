"""When JAX's convolutions are ours: the patch on and off, caches, exports, devices, threads."""

import re
import threading

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.jax_versions import since
from helpers.processes import run_on_cpus
from jax import lax
from jax._src.interpreters.mlir import _platform_specific_lowerings

import sepconv
from sepconv.engines.jax import patch

RULES = _platform_specific_lowerings["cpu"]
STOCK = RULES[lax.conv_general_dilated_p]

X = jnp.ones((1, 5, 5, 4))
#: A corner on padding is NaN in JAX's own convolution, and nothing in ours: so results tell whose.
KERNEL = jnp.ones((3, 3, 1, 4)).at[0, 0].set(jnp.inf)


@pytest.fixture(autouse=True)
def _unpatched():
    yield
    sepconv.unpatch_jax()
    assert RULES[lax.conv_general_dilated_p] is STOCK


def convolve(x, kernel=KERNEL):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
    )


def is_ours(function, x=X):
    return not np.isnan(function(x)[0, 0, 0, 0])


def test_public_names():
    assert {"patch_jax", "unpatch_jax"} <= set(dir(sepconv))
    assert all(">>>" in f.__doc__ for f in (sepconv.patch_jax, sepconv.unpatch_jax))


# --- On and off -----------------------------------------------------------------------------------


def test_a_call_stays_until_it_is_undone():
    assert not is_ours(convolve)
    sepconv.patch_jax()
    assert is_ours(convolve)
    sepconv.unpatch_jax()
    assert not is_ours(convolve)
    sepconv.unpatch_jax()


def test_what_was_compiled_before_is_compiled_again_both_ways():
    function = jax.jit(convolve)
    scanned = jax.jit(lambda x: lax.scan(lambda c, _: (convolve(c), None), x, None, length=1)[0])
    for _ in range(2):
        assert not is_ours(function)
        assert not is_ours(scanned)
        with sepconv.patch_jax():
            assert is_ours(function)
            assert is_ours(scanned)


def test_what_is_compiled_ahead_of_time_keeps_what_it_has():
    before = jax.jit(convolve).lower(X).compile()
    with sepconv.patch_jax():
        under = jax.jit(convolve).lower(X).compile()
        assert not is_ours(before)
    assert is_ours(under)


def test_nested_calls_end_with_the_last():
    with sepconv.patch_jax():
        with sepconv.patch_jax():
            pass
        assert is_ours(convolve)
    assert not is_ours(convolve)


def test_unpatch_ends_all_calls_and_their_ends_do_nothing_more():
    with sepconv.patch_jax():
        sepconv.patch_jax()
        sepconv.unpatch_jax()
        assert not is_ours(convolve)
        sepconv.patch_jax()
    assert is_ours(convolve)


def test_a_patch_can_be_entered_again():
    made = sepconv.patch_jax()
    for _ in range(2):
        with made, made:
            assert is_ours(convolve)
        assert not is_ours(convolve)


def test_an_error_inside_ends_it():
    with pytest.raises(KeyError), sepconv.patch_jax():
        raise KeyError
    assert not is_ours(convolve)


def test_the_record_counts_what_is_compiled_in_its_time():
    with sepconv.patch_jax() as outer:
        convolve(X)
        convolve(X)  # compiled already
        with sepconv.patch_jax() as inner:
            convolve(X[:, :4])
            convolve(X.astype(int), KERNEL.astype(int))
    convolve(X[:, :3])
    assert outer.served == {"depthwise": 2}
    assert inner.served == {"depthwise": 1}
    assert inner.handed_on == outer.handed_on == {"dtype int32": 1}
    assert str(inner) == (
        "patch_jax: 1 of 2 convolutions served\n"
        "    1  depthwise\n"
        "    1  by JAX's own rule: dtype int32"
    )
    assert repr(inner) == (
        "JaxPatch(served={'depthwise': 1}, handed_on={'dtype int32': 1}, normalizations={})"
    )


def test_a_rule_that_others_put_over_ours_stays_and_reaches_jax():
    made = sepconv.patch_jax()
    ours = RULES[lax.conv_general_dilated_p]
    calls = []

    def theirs(*args, **params):
        calls.append(params)
        return patch._rule_of(ours)(*args, **params)

    RULES[lax.conv_general_dilated_p] = mine = patch._entry(ours, theirs)
    try:
        with made:
            pass
        assert RULES[lax.conv_general_dilated_p] is mine
        assert not is_ours(convolve)
        assert calls
        with sepconv.patch_jax():
            assert is_ours(convolve)
        assert RULES[lax.conv_general_dilated_p] is mine
        assert not is_ours(convolve)
    finally:
        RULES[lax.conv_general_dilated_p] = STOCK
        jax.clear_caches()


@pytest.mark.parametrize("rules", [{}, {"cpu": {}}, {"cpu": {lax.conv_general_dilated_p: 1}}, None])
def test_an_unknown_jax_is_an_error_in_one_sentence(monkeypatch, rules):
    table = "jax._src.interpreters.mlir._platform_specific_lowerings"
    if rules is None:
        monkeypatch.delattr(table)
    else:
        monkeypatch.setattr(table, rules)
    with pytest.raises(
        RuntimeError, match=rf"^patch_jax\(\) does not know JAX {jax.__version__}, "
    ):
        sepconv.patch_jax()
    monkeypatch.undo()
    assert not is_ours(convolve)


def test_a_rule_of_older_versions_is_its_own_entry():
    def older():
        """A rule, as JAX before 0.8 keeps it."""

    assert patch._entry(older, convolve) is convolve
    entry = patch._entry(STOCK, convolve)
    assert patch._rule_of(entry) is convolve
    if jax.__version_info__ >= (0, 8):
        assert type(entry) is type(STOCK)


# --- Programs that are JAX's ----------------------------------------------------------------------


def operations(text):
    """A module without the places in the source."""
    lines = [line for line in text.splitlines() if not line.startswith("#loc")]
    return [re.sub(r" ?loc\(.*?\)", "", line) for line in lines]


def test_exports_have_jaxs_own_operations():
    function = jax.jit(convolve)
    stock = [
        operations(jax.export.export(function, platforms=platforms)(X).mlir_module())
        for platforms in (("cpu",), ("cpu", "cuda"))
    ]
    with sepconv.patch_jax() as record:
        assert is_ours(function)
        for platforms, text in zip((("cpu",), ("cpu", "cuda")), stock, strict=True):
            exported = jax.export.export(function, platforms=platforms)(X)
            assert operations(exported.mlir_module()) == text
            assert not is_ours(exported.call)
            assert is_ours(function)
        (symbolic,) = jax.export.symbolic_shape("n")
        shape = jax.ShapeDtypeStruct((symbolic, 5, 5, 4), jnp.float32)
        assert "sepconv" not in jax.export.export(function)(shape).mlir_module()
    assert record.handed_on["the program is exported"] == 3


def test_programs_for_several_platforms_are_jaxs():
    with sepconv.patch_jax() as record:
        traced = jax.jit(convolve).trace(X)
        assert "sepconv" not in traced.lower(lowering_platforms=("cpu", "cuda")).as_text()
        assert "sepconv" in traced.lower(lowering_platforms=("cpu",)).as_text()
        assert "sepconv" not in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert record.handed_on == {"the program is lowered for several platforms": 1}


@since("0.7.2", "jax.set_mesh")
def test_arrays_with_a_sharding_in_their_type_are_jaxs():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with sepconv.patch_jax() as record, jax.set_mesh(mesh):
        x = jax.device_put(X, jax.sharding.NamedSharding(mesh, jax.P("data")))
        assert not is_ours(jax.jit(convolve), x)
    assert record.handed_on == {"arrays with a sharding in their type": 1}


DEVICES = """
import jax, jax.numpy as jnp, numpy as np, sepconv
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

assert jax.device_count() == 2
mesh = Mesh(np.array(jax.devices()), ("data",))
x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6, 5, 8)), "float32")
kernel = jnp.ones((3, 3, 1, 8))
sharded = jax.device_put(x, NamedSharding(mesh, P("data")))

def convolve(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=8
    )

gradients = jax.grad(lambda *a: (convolve(*a) ** 2).sum(), (0, 1))
programs = [(convolve, sharded), (gradients, sharded)]
if hasattr(jax, "shard_map"):  # from JAX 0.6.1 on
    mapped = jax.shard_map(convolve, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    programs.append((mapped, x))
expected = [jax.jit(function)(a, kernel) for function, a in programs]
with sepconv.patch_jax() as record:
    for (function, a), wanted in zip(programs, expected, strict=True):
        found = jax.jit(function)(a, kernel)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.sharding.is_equivalent_to(other.sharding, one.ndim)
    assert not record.served
    assert list(record.handed_on) == ["the program is spread over devices"], record
    # The same function on one of the devices.
    function = jax.jit(convolve)
    function(sharded, kernel)
    for device in jax.devices():
        y = function(jax.device_put(x, device), jax.device_put(kernel, device))
        assert y.devices() == {device}
        np.testing.assert_allclose(y, expected[0], rtol=1e-5)
    assert record.served == {"depthwise": 1} or record.served == {"depthwise": 2}, record
"""

NO_KERAS = """
import sys
sys.modules["keras"] = None  # importing it is an error
import jax.numpy as jnp, sepconv
from jax import lax
assert "jax" in sys.modules and "sepconv.engines.jax.patch" not in sys.modules
with sepconv.patch_jax() as record:
    lax.conv(jnp.ones((1, 8, 3, 3)), jnp.ones((8, 8, 1, 1)), (1, 1), "SAME")
assert record.served == {"1x1": 1}
assert sepconv.unpatch_jax() is None
"""

LATER = """
import sepconv, sepconv.jax
with sepconv.patch_jax():
    pass
sepconv.jax.keep_memory()  # an error once JAX has a backend
"""


@pytest.mark.parametrize(
    ("script", "devices"),
    [(DEVICES, 2), (NO_KERAS, 1), (LATER, 1)],
    ids=["devices", "no Keras", "starts no backend"],
)
def test_in_a_process_of_its_own(script, devices):
    run_on_cpus(script, devices)


# --- Threads --------------------------------------------------------------------------------------


def test_threads_patch_and_compute_at_once():
    errors = []
    clean = jnp.ones((3, 3, 1, 4))
    expected = np.asarray(convolve(X, clean))

    def work(number):
        try:
            for turn in range(4):
                x = jnp.tile(X, (number + 1, 1, 1, 1))
                if (number + turn) % 2:
                    with sepconv.patch_jax() as record:
                        y = jax.jit(lambda x: convolve(x, clean))(x)
                        assert record.served.total() >= 1
                else:
                    y = jax.jit(lambda x: convolve(x, clean))(x)
                np.testing.assert_allclose(y, np.tile(expected, (number + 1, 1, 1, 1)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not is_ours(convolve)
