"""A worker on JAX: Keras' `DataParallel`, or a jitted step over a mesh of devices."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from problem import LEARNING_RATE, MOMENTUM, build, options, pictures, report

Step = Callable[[np.ndarray, np.ndarray], Any]


def join(rank: int, world: int, port: int, patience: int) -> None:
    """Joins the processes; JAX ends this one if another is missing or stops answering."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        world,
        rank,
        initialization_timeout=60,
        heartbeat_timeout_seconds=patience,
    )
    assert jax.process_count() == world
    assert jax.device_count() == world * jax.local_device_count()


def keras_step() -> Step:
    """A step of Keras' own training under `keras.distribution.DataParallel`."""
    import keras

    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    model = build()
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        model.reset_metrics()
        return model.train_on_batch(x, y)

    return step


def jit_step() -> Step:
    """A user's own step: jit, with the batch sharded and the weights on every device."""
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("batch",))
    split = NamedSharding(mesh, PartitionSpec("batch"))
    whole = NamedSharding(mesh, PartitionSpec())
    model = build()

    def loss_of(weights: list[Any], x: Any, y: Any) -> Any:
        logits, _ = model.stateless_call(weights, [], x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()

    @jax.jit
    def update(weights: list[Any], momenta: list[Any], x: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(weights, x, y)
        momenta = [
            MOMENTUM * m - LEARNING_RATE * g for m, g in zip(momenta, gradients, strict=True)
        ]
        weights = [w + m for w, m in zip(weights, momenta, strict=True)]
        return weights, momenta, loss

    weights = [jax.device_put(np.asarray(v.value), whole) for v in model.trainable_variables]
    momenta = [jax.device_put(np.zeros(w.shape, w.dtype), whole) for w in weights]

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        nonlocal weights, momenta
        xs, ys = (jax.make_array_from_process_local_data(split, part) for part in (x, y))
        weights, momenta, loss = update(weights, momenta, xs, ys)
        return loss

    return step


def main() -> None:
    """Trains, telling each step's loss."""
    given = options()
    if given.world > 1:
        join(given.rank, given.world, given.port[0], given.patience)
    step = {"keras": keras_step, "jit": jit_step}[given.way]()
    for number in range(given.steps):
        report(number, step(*pictures(given.rank, given.world, number)))


if __name__ == "__main__":
    main()
