"""A worker on TensorFlow's `MultiWorkerMirroredStrategy`, with a training step of its own.

`Model.fit` is of no use here: Keras 3.15, with its own layers too, fails under this
strategy with "Attempt to convert a value (PerReplica...) with an unsupported type".
"""

from __future__ import annotations

import json
import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import argparse
from typing import Any

from problem import BATCH, LEARNING_RATE, MOMENTUM, build, options, pictures, report


def strategy_for(rank: int, ports: list[int], patience: int) -> Any:
    """The strategy; TensorFlow reads the participants from the variable TF_CONFIG."""
    workers = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": rank}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    import tensorflow as tf

    communication = tf.distribute.experimental.CommunicationOptions(timeout_seconds=patience)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=communication)


def train(strategy: Any, given: argparse.Namespace) -> None:
    """Trains with a step that every replica runs on its worker's share."""
    import keras
    import tensorflow as tf

    with strategy.scope():
        model = build()
        optimizer = keras.optimizers.SGD(LEARNING_RATE, MOMENTUM)
        optimizer.build(model.trainable_variables)

    def replica_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
            loss = tf.reduce_sum(each) / BATCH  # this replica's part of the mean over all
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients)  # which sums the gradients over the replicas
        return loss

    @tf.function
    def step(x: Any, y: Any) -> Any:
        parts = strategy.run(replica_step, args=(x, y))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    for number in range(given.steps):
        x, y = (tf.constant(part) for part in pictures(given.rank, given.world, number))
        report(number, step(x, y))


def main() -> None:
    """Takes part in the training, telling each step's loss."""
    given = options()
    if given.world > 1:
        strategy = strategy_for(given.rank, given.port, given.patience)
    else:
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
    train(strategy, given)


if __name__ == "__main__":
    main()
