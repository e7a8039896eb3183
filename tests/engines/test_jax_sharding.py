"""sepconv.jax with the batch sharded over two virtual CPU devices, in a process of its own."""

import os
import subprocess
import sys

import pytest
from helpers.jax_versions import since

PRELUDE = """
import re
import jax, numpy as np
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import sepconv, sepconv.jax

jax.config.update("jax_enable_x64", True)
assert jax.device_count() == 2
rng = np.random.default_rng(0)
options = dict(strides=(2, 1), padding="same", dilation_rate=(1, 2))
x = rng.standard_normal((BATCH, 7, 6, 3))
weights = [rng.standard_normal(shape) for shape in ((3, 2, 3, 2), (1, 1, 6, 5), (5,))]
y = sepconv.reference.separable_conv2d(x, *weights, **options)
dy = rng.standard_normal(y.shape)
gradients = sepconv.reference.separable_conv2d_grad(x, *weights[:2], dy, **options)

mesh = Mesh(np.array(jax.devices()), ("data",))
split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

def forward(x, *weights):
    return sepconv.jax.separable_conv2d(x, *weights, **options)

def loss(dy, x, *weights):
    return (forward(x, *weights) * dy).sum()

gradient = jax.grad(loss, (1, 2, 3, 4))

def check(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)

def collectives(compiled):
    names = "all-gather|all-reduce|all-to-all|collective-permute"
    return set(re.findall(rf"({names})(?:-start)?[(]", compiled.as_text()))

def put(values, sharding):
    return [jax.device_put(value, sharding) for value in values]
"""

BATCH_SHARDED = """
xs, dys = put([x, dy], split)
ws = put(weights, whole)
compiled = jax.jit(forward).lower(xs, *ws).compile()
assert collectives(compiled) == set(), compiled.as_text()
out = compiled(xs, *ws)
check(out, y)
assert out.sharding.is_equivalent_to(split, 4)

# The only communication is the sum of the weights' gradients.
compiled = jax.jit(gradient).lower(dys, xs, *ws).compile()
assert collectives(compiled) == {"all-reduce"}, compiled.as_text()
out = compiled(dys, xs, *ws)
check(out, gradients)
assert out[0].sharding.is_equivalent_to(split, 4)
assert out[1].sharding.is_fully_replicated

def second(x, *weights):
    def penalty(x):
        return (jax.grad(lambda x: (forward(x, *weights) ** 3).sum())(x) ** 2).sum()
    return jax.grad(penalty)(x)

compiled = jax.jit(second).lower(xs, *ws).compile()
assert collectives(compiled) == set(), compiled.as_text()
check(compiled(xs, *ws), jax.jit(second)(x, *weights))

# Without jit, and where the rest of the program shards another axis.
check(forward(xs, *ws), y)
check(jax.jit(forward)(jax.device_put(x, NamedSharding(mesh, P(None, None, "data"))), *ws), y)
"""

UNEVEN = """
# 5 images on 2 devices: the padding that XLA would add must not reach the sums.
def program(dy, x, *weights):
    x, dy = (jax.lax.with_sharding_constraint(a * 1.0, split) for a in (x, dy))
    return gradient(dy, x, *weights)

check(jax.jit(program)(*put([dy, x, *weights], whole)), gradients)
"""

SHARD_MAP = """
specs = (P("data"), P("data"), P(), P(), P())
mapped = jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=specs[1:])
check(jax.jit(mapped)(dy, x, *weights), gradients)
"""

EXPLICIT = """
from jax.sharding import AxisType
with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))):
    xs, dys = put([x, dy], P("data"))
    out = jax.jit(forward)(xs, *weights)
    check(out, y)
    assert jax.typeof(out).sharding.spec[0] == "data"
    check(jax.jit(gradient)(dys, xs, *weights), gradients)
"""


@pytest.mark.parametrize(
    ("script", "batch"),
    [
        (BATCH_SHARDED, 4),
        (UNEVEN, 5),
        pytest.param(SHARD_MAP, 4, marks=since("0.6.1", "jax.shard_map")),
        pytest.param(EXPLICIT, 4, marks=since("0.7.2", "jax.set_mesh")),
    ],
    ids=["batch", "uneven", "shard_map", "explicit"],
)
def test_two_devices(script, batch):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    run = subprocess.run(
        [sys.executable, "-c", f"BATCH = {batch}\n{PRELUDE}\n{script}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-4000:]
