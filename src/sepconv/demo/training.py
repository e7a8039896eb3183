"""Trains the demo's network once, in its own process, and prints its progress.

The process is separate, so that its peak memory is that of this training alone.
`python -m sepconv.demo.training` takes a `Job` as JSON and prints events, a JSON object a line:
``{"event": "batch", ...}`` after every step and ``{"event": "done", "run": ...}`` at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sepconv.demo.data import Pictures, load

__all__ = ["BATCH_SIZE", "Job", "Run", "build_network", "compile_network", "main", "train"]

BATCH_SIZE = 32
LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class Job:
    """The task of one process.

    Attributes:
        layers: ``"keras"`` or ``"sepconv"``, the owner of the network's separable layers.
        data: a key of `sepconv.demo.data.DATA_SETS`.
        epochs: the number of passes over the training set.
        seed: of the weights and of the order of the pictures.
        weights: the path of an .npz file. If it exists, the network starts from these weights; else
            its initial weights are written there.
    """

    layers: str
    data: str
    epochs: int
    seed: int
    weights: str


@dataclass(frozen=True)
class Run:
    """The result of one training.

    Attributes:
        layers: as in `Job`.
        epoch_seconds: the time of each epoch's training steps, compilation within the first.
        compile_seconds: the time of the first step minus that of a usual step.
        history: ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy`` after each epoch, as Keras
            names them; ``val_`` is the held-out test set.
        peak_bytes: the peak of memory in training, less the memory before it.
        kernels: layer name -> learned depthwise kernels, (kernels, height, width), as lists.
        parameters: the number of weights in the network.
    """

    layers: str
    epoch_seconds: list[float]
    compile_seconds: float
    history: dict[str, list[float]]
    peak_bytes: int
    kernels: dict[str, list[Any]]
    parameters: int

    @property
    def seconds_an_epoch(self) -> float:
        """The median time of an epoch; without the first, which compiles, where there are more."""
        return statistics.median(self.epoch_seconds[1:] or self.epoch_seconds)

    @property
    def test_accuracy(self) -> float:
        """The accuracy on the test set after the last epoch."""
        return self.history["val_accuracy"][-1]


def build_network(
    layers: Any,
    classes: int,
    size: int = 32,
    filters: tuple[int, ...] = (32, 64, 64, 128),
    strides: tuple[int, ...] = (2, 1, 2),
) -> Any:
    """A convolution, then separable blocks of 5x5, each with batch norm and relu.

    Args:
        layers: the module whose `SeparableConv2D` to use: `keras.layers` or `sepconv.layers`.
        classes: the number of outputs (logits).
        size: height and width of the pictures, of one channel.
        filters: channels after the first convolution, then after each separable block.
        strides: of the separable blocks.

    Returns:
        A Keras model.
    """
    import keras

    def normalize(x: Any) -> Any:
        # Keras' momentum of 0.99 needs hundreds of steps; an epoch here has some forty.
        return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))

    inputs = keras.Input((size, size, 1))
    first = keras.layers.Conv2D(filters[0], 3, padding="same", use_bias=False)
    x = normalize(first(inputs))
    for block, (channels, stride) in enumerate(zip(filters[1:], strides, strict=True), 1):
        separable = layers.SeparableConv2D(
            channels, 5, strides=stride, padding="same", use_bias=False, name=f"block_{block}"
        )
        x = normalize(separable(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


def compile_network(model: Any, steps: int) -> None:
    """Gives a network the demo's loss, and its optimizer for so many steps."""
    import keras

    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])


def _start_weights(model: Any, path: str) -> None:
    """Gives the model the weights in the file, or writes its own there."""
    import numpy as np

    if os.path.exists(path):
        with np.load(path) as saved:
            model.set_weights([saved[f"arr_{i}"] for i in range(len(saved.files))])
    else:
        np.savez(path, *model.get_weights())


def _memory(field: str) -> int:
    """The bytes of memory that this process uses (``VmRSS``), or its peak (``VmHWM``).

    Systems other than Linux report the peak only, which is returned for both.
    """
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _forget_peak() -> None:
    """Resets ``VmHWM``, where the system allows it."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _watch(tell: Callable[[dict[str, Any]], None], step_seconds: list[list[float]]) -> Any:
    """A Keras callback that reports each step, and appends the seconds of each epoch's steps."""
    import keras

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            step_seconds.append([])
            self.epoch, self.last = epoch, time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            # Reading the loss waits for the end of the step, on asynchronous engines.
            loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
            now = time.perf_counter()
            step_seconds[-1].append(now - self.last)
            self.last = now
            tell({"event": "batch", "epoch": self.epoch, "loss": loss, "accuracy": accuracy})

        def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
            tell({"event": "epoch", "epoch": epoch, "val_accuracy": float(logs["val_accuracy"])})

    return Watch()


def train(
    layers_name: str,
    pictures: Pictures,
    epochs: int,
    seed: int,
    weights: str,
    tell: Callable[[dict[str, Any]], None] = lambda event: None,
    **network: Any,
) -> Run:
    """Trains the network on the engine that Keras runs on.

    Args:
        layers_name: see `Job`, and so `epochs`, `seed` and `weights`.
        pictures: the data set.
        epochs: see `Job`.
        seed: see `Job`.
        weights: see `Job`.
        tell: is called with each event.
        network: arguments of `build_network` other than its defaults.
    """
    import keras

    if layers_name == "sepconv":
        from sepconv import layers
    else:
        layers = keras.layers
    keras.utils.set_random_seed(seed)
    model = build_network(layers, len(pictures.classes), pictures.x_train.shape[1], **network)
    _start_weights(model, weights)
    # Whole batches only, so that nothing is compiled a second time for a smaller last one.
    steps = max(1, len(pictures.x_train) // BATCH_SIZE)
    used = steps * BATCH_SIZE
    compile_network(model, epochs * steps)
    keras.utils.set_random_seed(seed)  # building may have drawn numbers
    step_seconds: list[list[float]] = []
    _forget_peak()
    before = _memory("VmRSS")
    history = model.fit(
        pictures.x_train[:used],
        pictures.y_train[:used],
        batch_size=BATCH_SIZE,
        epochs=epochs,
        validation_data=(pictures.x_test, pictures.y_test),
        callbacks=[_watch(tell, step_seconds)],
        verbose=0,
    ).history
    peak = max(0, _memory("VmHWM") - before)  # negative if memory was freed meanwhile
    kernels = {
        layer.name: _pictures_of(keras.ops.convert_to_numpy(layer.depthwise_kernel))
        for layer in model.layers
        if isinstance(layer, keras.layers.SeparableConv2D)
    }
    history = {name: [float(v) for v in values] for name, values in history.items()}
    step = statistics.median(seconds for epoch in step_seconds for seconds in epoch)
    return Run(
        layers=layers_name,
        epoch_seconds=[sum(epoch) for epoch in step_seconds],
        compile_seconds=max(0.0, step_seconds[0][0] - step),
        history=history,
        peak_bytes=peak,
        kernels=kernels,
        parameters=model.count_params(),
    )


def _pictures_of(kernel: Any) -> list[Any]:
    """(height, width, channels, multiplier) as a list of pictures."""
    return kernel.reshape(*kernel.shape[:2], -1).transpose(2, 0, 1).tolist()


def main(arguments: list[str]) -> None:
    """Does the one `Job` given as JSON."""
    # Engines may print to standard output, so they get standard error instead.
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(event: dict[str, Any]) -> None:
        print(json.dumps(event), file=events, flush=True)

    job = Job(**json.loads(arguments[0]))
    pictures = load(job.data)
    steps = len(pictures.x_train) // BATCH_SIZE
    tell({"event": "start", "steps": steps * job.epochs})
    run = train(job.layers, pictures, job.epochs, job.seed, job.weights, tell)
    tell({"event": "done", "run": asdict(run)})


if __name__ == "__main__":
    main(sys.argv[1:])
