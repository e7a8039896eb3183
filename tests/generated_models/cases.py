"""A model with inputs and targets, from a seed: `make`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from generated_models import compiling, graphs, weights
from generated_models.draw import Draw, UnfitError
from generated_models.sequences import VOCABULARY, WORDS

#: How far from the largest number a prediction may be, by what is in the model: float32's bound;
#: half types round each layer's result to 8 or 11 bits, and int8 may round to the next number.
BOUNDS = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 6e-2, "int8": 5e-2}
_ATTEMPTS = 60


@dataclass
class Case:
    """A model to be copied, and what to call it on.

    Attributes:
        seed: which makes it.
        model: the model.
        inputs: arrays in the structure that it takes.
        targets: likewise, for its outputs.
        sample_weights: for training, or None.
        features: see `Draw`.
        made: its description, line by line.
        rejected: why earlier attempts were no model, or none worth comparing.
    """

    seed: int
    model: Any
    inputs: Any
    targets: Any
    sample_weights: Any
    features: set[str]
    made: list[str]
    rejected: list[str] = field(default_factory=list)

    @property
    def bound(self):
        """How far apart predictions may be, relative to the largest."""
        return max(BOUNDS.get(feature, BOUNDS["float32"]) for feature in {"", *self.features})

    def __str__(self):
        lines = "\n  ".join(self.made)
        return f"seed {self.seed} on {keras.backend.backend()}:\n  {lines}"


def make(seed, train=True):
    """The model of a seed; the same in any process on the same engine.

    Args:
        seed: an integer.
        train: whether it may have been trained for a step already.
    """
    rejected = []
    for attempt in range(_ATTEMPTS):
        d = Draw(seed, attempt)
        keras.backend.clear_session(free_memory=False)
        keras.utils.set_random_seed(1000 * seed + attempt)
        try:
            case = _draw(d, seed, train)
        except UnfitError as unfit:
            rejected.append(f"UnfitError: {unfit}")
        except Exception as error:  # of Keras or the engine, about what was drawn
            rejected.append(f"{type(error).__name__}: {error} <- {'; '.join(d.made[-3:])}")
        else:
            case.rejected = rejected
            return case
    raise RuntimeError(f"no model comes of seed {seed}: {rejected}")


def _draw(d, seed, train):
    pick = d.random.random()
    draw = graphs.functional if pick < 0.65 else graphs.sequential
    if pick > 0.88:
        draw = graphs.subclassed
    model = draw(d)
    if draw is graphs.subclassed:
        model.build(d.input_shape)
    inputs = _inputs(d, model)
    predict(model, inputs)  # builds what is built by a call
    for action in d.later:
        action()
    weights.fill(model, d.random)
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.Conv2D and layer.groups == 1 and d.chance(0.4):
            weights.make_low_rank(layer, d.one(1, 1, 2))
            d.say(f"{layer.name} has a kernel of low rank")
    for action in d.last:
        action()
    _freeze(d, model)
    outputs = predict(model, inputs)
    _check_outputs(outputs)
    case = Case(seed, model, inputs, None, None, d.features, d.made)
    case.targets = compiling.targets_for(d, outputs)
    if d.chance(0.55):
        _compile(d, case, train)
    check_alive(case)
    return case


def _compile(d, case, train):
    compiling.compile_model(d, case.model)
    case.features.add("compiled")
    if len(keras.tree.flatten(case.targets)) == 1 and d.chance(0.3):
        case.sample_weights = np.array([0.5, 2.0], "float32")
    if train and d.chance(0.4):
        case.made.append("trained for a step")
        arguments = case.inputs, case.targets, 1, case.sample_weights
        compiling.train(case.model, *arguments)


def _freeze(d, model):
    layers = list(model._flatten_layers(include_self=False))
    for layer in layers:
        if layer.weights and d.chance(0.06):
            layer.trainable = False
            d.say(f"{layer.name} is frozen")
    if d.chance(0.04):
        model.trainable = False
        d.say("the model is frozen")


def _inputs(d, model):
    tensors = getattr(model, "_inputs_struct", None)
    if tensors is None and isinstance(model, keras.Sequential):
        tensors = model.inputs[0]
    if tensors is None:
        return d.array(graphs.BATCH, *[8 if n is None else n for n in d.input_shape[1:]])

    def array(tensor):
        shape = (graphs.BATCH, *(8 if size is None else size for size in tensor.shape[1:]))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if dtype == "string":
            words = d.random.choice([*WORDS, "unknown"], shape)
            return ops.convert_to_tensor(words.tolist())
        if dtype.startswith("int"):
            return d.random.integers(0, VOCABULARY, shape).astype("int32")
        return d.array(*shape)

    return keras.tree.map_structure(array, tensors)


def values_of(variable):
    """A variable's numbers, as an array that owns them."""
    value = variable.value if hasattr(variable, "value") else variable
    if keras.backend.standardize_dtype(value.dtype) == "bfloat16":
        value = ops.cast(value, "float32")
    return np.array(ops.convert_to_numpy(value))


def predict(model, inputs):
    """The model's predictions as arrays of float64; its states stay what they were."""
    # Keras does not count a recurrent layer's states among the model's variables.
    recurrent = [getattr(layer, "states", None) for layer in model._flatten_layers()]
    variables = [*model.non_trainable_variables, *keras.tree.flatten(recurrent)]
    states = [(v, values_of(v)) for v in variables if v is not None]
    outputs = model(inputs, training=False)
    arrays = keras.tree.map_structure(
        lambda y: np.asarray(ops.convert_to_numpy(ops.cast(y, "float32")), "float64"), outputs
    )
    for variable, values in states:
        variable.assign(ops.cast(values, variable.dtype))
    return arrays


def distance(expected, found):
    """The largest difference between predictions, relative to the largest of the output."""
    worst = 0.0
    flat = keras.tree.flatten(expected), keras.tree.flatten(found)
    for a, b in zip(*flat, strict=True):
        if a.shape != b.shape or not np.isfinite(b).all():
            return float("inf")
        worst = max(worst, np.abs(a - b).max() / np.abs(a).max())
    return worst


def _check_outputs(outputs):
    """Raises `UnfitError` where outputs are of an odd size, or hardly vary."""
    for y in keras.tree.flatten(outputs):
        largest = np.abs(y).max(initial=0.0)
        if not np.isfinite(y).all() or not 0.05 < largest < 100:
            raise UnfitError(f"an output of {largest}")
        if np.abs(y[0] - y[1]).max() < 0.1 * largest:
            raise UnfitError("an output that hardly varies over the inputs")


def changed_layers(case):
    """(layer, how far predictions go when its state is another), for layers with a state."""
    model = case.model
    expected = predict(model, case.inputs)
    for layer in model._flatten_layers():
        hidden = getattr(layer, "hidden", None)
        if hidden is not None:  # in no weight: what a new layer has is another state
            before = getattr(layer, hidden)
            setattr(layer, hidden, getattr(type(layer)(), hidden))
            try:
                yield layer, distance(expected, predict(model, case.inputs))
            finally:
                setattr(layer, hidden, before)
            continue
        own = {id(v) for part in layer._layers for v in part.variables}
        mine = [
            v
            for v in layer.weights
            if id(v) not in own
            and keras.backend.is_float_dtype(v.dtype)
            and v.name != "vector_u"  # of the power method, which runs in training alone
        ]
        if not mine:
            continue
        finish = getattr(layer, "finalize_state", lambda: None)  # of an adapted Normalization
        before = [values_of(v) for v in mine]
        for variable, values in zip(mine, before, strict=True):
            variable.assign(ops.cast(_other(variable, values), variable.dtype))
        finish()
        try:
            yield layer, distance(expected, predict(model, case.inputs))
        finally:
            for variable, values in zip(mine, before, strict=True):
                variable.assign(ops.cast(values, variable.dtype))
            finish()


def _other(variable, values):
    """Far from the values, and still a variance where it is one."""
    if "variance" in variable.path:
        return 3.0 * values + 0.5
    return -0.5 * values[..., ::-1] if values.ndim else values + 2.0


def check_alive(case):
    """Raises `UnfitError` where a layer could be copied wrongly and nobody would see it."""
    for layer, apart in changed_layers(case):
        if not apart > 2 * case.bound:
            raise UnfitError(f"dead: {layer.name} ({apart:.1e})")
