"""Networks and programs that know nothing of us, under `patch_jax`: flax, equinox, plain JAX.

The programs are those of benchmarks/jax_networks.py, small: networks, and what people have reported
to JAX as slow.
"""

import importlib
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import scripts
from helpers.convolutions import agree

import sepconv

pytestmark = pytest.mark.usefixtures("quick_jax")

ORDINARY = "an ordinary convolution, neither a depthwise nor a 1x1 one"
FORWARD, X, KERNEL = "depthwise", "depthwise, input gradient", "depthwise, kernel gradient"
PRODUCT, PRODUCT_KERNEL = "1x1", "1x1, kernel gradient"


def served(depthwise, products):
    """What a record has of so many layers all of whose gradients are wanted."""
    kinds = {FORWARD: depthwise, X: depthwise, KERNEL: depthwise}
    return kinds | {PRODUCT: products, "1x1, input gradient": products, PRODUCT_KERNEL: products}


@pytest.fixture(scope="module")
def programs():
    """The benchmark's module."""
    pytest.importorskip("flax")
    with scripts.importable(scripts.BENCHMARKS):
        yield importlib.import_module("jax_networks")


def record_of(programs, program, ways=2):
    assert programs.difference(program) < 1e-8
    times, record = programs.compare(program, seconds=0, at_least=1)
    assert [len(spent) for spent in times] == [1] * ways
    return record


def test_a_training_step_of_mobilenet_in_flax(programs):
    """Also with our functions in the place of its layers."""
    program = programs.mobilenet(batch=2, size=32, width=8, blocks=[(2, 1), (2, 2)])
    record = record_of(programs, program, ways=3)
    assert record.served == served(2, 2)
    assert record.handed_on == {ORDINARY: 2}  # the first layer and its kernel's gradient
    with sepconv.patch_jax():
        patched = calls(program.function, program.arrays)
    assert patched == calls(program.called, program.arrays)


def calls(function, arrays):
    """How often a compiled program calls each of our convolutions; small normalizations differ."""
    text = jax.jit(function).lower(*arrays).compile().as_text()
    names = "sepconv_forward|sepconv_backward|sepconv_pointwise_backward"
    return Counter(re.findall(f'custom_call_target="({names})"', text))


def test_a_training_step_of_convnext_in_flax(programs):
    record = record_of(programs, programs.convnext(batch=2, size=16, channels=8, blocks=1))
    assert record.served == served(1, 2)
    assert record.handed_on == {ORDINARY: 2}


def test_a_training_step_of_eegnet_in_flax(programs):
    record = record_of(programs, programs.eegnet(batch=2, electrodes=4, samples=64, filters=4))
    assert record.served == served(2, 1) | {FORWARD: 3, KERNEL: 3}  # the first is of the data
    assert not record.handed_on


def test_a_training_step_of_conformer_modules_in_flax(programs):
    record = record_of(programs, programs.conformer(2, steps=12, channels=8, size=5, blocks=1))
    assert record.served == served(1, 2)
    assert not record.handed_on


def test_a_result_that_differs_is_seen(programs):
    program = programs.layer(channels=8, size=5)
    wrong = program._replace(called=lambda *arrays: 1.001 * program.function(*arrays))
    assert programs.difference(program) < 1e-8 < programs.difference(wrong)


# --- What people have reported as slow ------------------------------------------------------------

REPORTED = {
    "layer": lambda programs: programs.layer(channels=16, size=9),
    "stack": lambda programs: programs.stack(batch=2, channels=8, steps=16, layers=3),
    **{
        f"dilated-{way}": lambda programs, way=way: programs.dilated(way, 2, 4, 32, dilation=2)
        for way in ("groups", "vmap", "slices")
    },
}


@pytest.mark.parametrize("name", REPORTED)
def test_a_program_that_was_reported_as_slow_is_served(name, programs):
    record = record_of(programs, REPORTED[name](programs))
    # Equal convolutions are compiled once.
    expected = {FORWARD: 1} if name == "layer" else {FORWARD: 1, X: 1, KERNEL: 1}
    if name == "stack":
        expected[KERNEL] = 2  # of the first layer it is alone
    assert record.served == expected
    assert not record.handed_on


def gradients_of(function):
    """The gradients of the sum of the squares of its results."""

    def loss(*arrays):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(function(*arrays)))

    return lambda *arrays: jax.grad(loss, range(len(arrays)))(*arrays)


@pytest.mark.parametrize("name", REPORTED)
def test_derivatives_of_a_program_that_was_reported_as_slow(name, programs):
    """To the second, in float32; all but the layer are gradients already."""
    program = REPORTED[name](programs)
    functions = [program.function, gradients_of(program.function)]
    if name == "layer":
        functions.append(gradients_of(functions[1]))

    def all_of_them(*arrays):
        return [function(*arrays) for function in functions]

    expected = jax.jit(all_of_them)(*program.arrays)
    with sepconv.patch_jax() as record:
        agree(jax.jit(all_of_them)(*program.arrays), expected)
    assert {FORWARD, KERNEL} <= set(record.served)
    # Of a second derivative one is JAX's own: an image as the kernel, or an input dilation.
    assert record.handed_on.total() == (0 if name == "stack" else 1)


def test_the_benchmark_prints_a_row(programs, monkeypatch, capsys):
    small = {"layer": lambda: programs.layer(channels=8, size=5)}
    monkeypatch.setattr(programs, "PROGRAMS", small)
    monkeypatch.setattr("sys.argv", ["jax_networks.py", "layer", "--seconds", "0"])
    assert programs.main() == 0
    assert "| 1 of 1 |" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["jax_networks.py", "another"])
    with pytest.raises(SystemExit):
        programs.main()
    assert "Received: another" in capsys.readouterr().err


def test_layers_of_flax_linen():
    nn = pytest.importorskip("flax.linen")
    layer = nn.Sequential(
        [
            nn.Conv(8, (3, 3), feature_group_count=8, kernel_dilation=2),
            nn.Conv(8, (5,), feature_group_count=8, padding="CAUSAL"),
            nn.Conv(16, (1, 1)),
            nn.ConvTranspose(16, (3, 3), strides=(2, 2)),
        ]
    )
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 6, 8)), "float32")
    weights = jax.jit(layer.init)(jax.random.key(0), x)

    def loss(weights):
        return (layer.apply(weights, x) ** 2).mean()

    expected = jax.jit(jax.grad(loss))(weights)
    with sepconv.patch_jax() as record:
        agree(jax.jit(jax.grad(loss))(weights), expected)
    assert record.served.total() >= 7
    assert set(record.handed_on) == {ORDINARY}


def test_a_training_step_in_equinox():
    """Its layers are channels first, of one image, and mapped over the batch."""
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 4)

    def conv(channels, filters, size, key, **options):
        return eqx.nn.Conv2d(channels, filters, size, padding=size // 2, key=key, **options)

    model = eqx.nn.Sequential(
        [
            conv(3, 8, 3, keys[0], stride=2),
            eqx.nn.Lambda(jax.nn.relu),
            conv(8, 8, 3, keys[1], groups=8),
            conv(8, 16, 1, keys[2]),
            eqx.nn.Lambda(jax.nn.relu),
            conv(16, 16, 5, keys[3], groups=16, stride=2),
        ]
    )
    x = jax.random.normal(keys[0], (4, 3, 16, 14))

    @eqx.filter_jit
    def gradients(model, x):
        def loss(model):
            return (jax.vmap(model)(x) ** 2).mean()

        return eqx.filter_grad(loss)(model)

    def leaves(tree):
        return jax.tree.leaves(eqx.filter(tree, eqx.is_array))

    expected = leaves(gradients(model, x))
    with sepconv.patch_jax() as record:
        agree(leaves(gradients(model, x)), expected)
    # A product by a matrix that is [filters, channels] in memory has its gradients by two calls.
    assert record.served == {FORWARD: 2, X: 2, KERNEL: 2, PRODUCT: 2, PRODUCT_KERNEL: 1}
    assert record.handed_on == {ORDINARY: 2}
    # Gradients of each image.
    each = eqx.filter_jit(
        jax.vmap(lambda image: eqx.filter_grad(lambda m: (m(image) ** 2).mean())(model))
    )
    expected = leaves(each(x))
    with sepconv.patch_jax() as record:
        agree(leaves(each(x)), expected)
    assert record.served[KERNEL] == 2
