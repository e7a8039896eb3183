"""`keep_memory`: JAX's steps find the memory of the ones before."""

from __future__ import annotations

import platform

import jax
import pytest
from helpers.processes import printed_number

import sepconv.jax

STEPS = """
import resource, sys
import sepconv.jax
if sys.argv[1] == "kept":
    assert sepconv.jax.keep_memory()
import jax, jax.numpy as jnp

step = jax.jit(lambda x: x * 2)
x = jnp.ones(1 << 24)  # 64 MiB, more than the C library ever keeps by itself
for i in range(24):
    if i == 12:  # some blocks take turns
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    y = step(x).block_until_ready()
    del y
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not GNU's C library")
def test_steps_have_no_new_memory():
    faults = {way: printed_number(STEPS, way) for way in ("kept", "given back")}
    assert faults["kept"] < faults["given back"] / 2, faults


def test_it_says_when_it_comes_too_late():
    jax.block_until_ready(jax.numpy.ones(3))
    with pytest.raises(RuntimeError, match="before JAX computes"):
        sepconv.jax.keep_memory()
