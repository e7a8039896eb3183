"""Replaces ordinary convolutions of a Keras model by separable ones: `sepconv.factorize`.

`lowrank` has the mathematics, `candidate` the layers that a convolution may become, `goals` and
`ranks` the choice among them; `calibrate` runs the model on data. This module takes the model apart
and puts it together again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from sepconv.models.calibrate import (
    batches,
    check_data,
    gather_moments,
    single_inputs,
)
from sepconv.models.candidate import Candidate, refusal
from sepconv.models.copying import copy_model, is_open, settle_jit
from sepconv.models.cost import calls, cost
from sepconv.models.factorize_report import LayerReport, Report
from sepconv.models.goals import Goal, choose, goal_of, options_of, passes, progress, row_of
from sepconv.models.inputs import InputsError
from sepconv.models.lowrank import Moments, full_rank
from sepconv.models.ranks import Option
from sepconv.models.running import pass_through, run
from sepconv.models.untouched import restored, untouched
from sepconv.models.verify import check_copy

__all__ = ["Factorized", "factorize"]


class Factorized(NamedTuple):
    """The result of `factorize`.

    Attributes:
        model: the new model, or the new layer where a layer was given.
        report: a line for each layer; prints as a table.
    """

    model: Any
    report: Report


def factorize(
    layer_or_model: Any,
    *,
    rank: int | None = None,
    energy: float | None = None,
    max_error: float | None = None,
    flops: int | float | None = None,
    parameters: int | float | None = None,
    data: Any = None,
    verify: Any = True,
) -> Factorized:
    """Replaces `Conv2D` layers by separable ones that compute nearly the same with less work.

    For each input channel the kernel is a matrix of taps by filters. Cut off at a rank by its
    SVD, it is that many depthwise kernels and as many rows of a pointwise kernel: a
    `sepconv.layers.SeparableConv2D` with ``depth_multiplier=rank``. At the rank
    ``min(kernel_height * kernel_width, filters)`` it computes the same as before.

    With `data` it is not the kernel that is approximated but the layer's output on that data, which
    at the same rank loses several times less; a few hundred inputs do. Name, strides, padding,
    dilation, data format, bias, activation, regularizers and dtype policy carry over. What comes
    out is an ordinary model with its own weights: it can be fine-tuned, saved and loaded.

    Exactly one of `rank`, `energy`, `max_error`, `flops` and `parameters` says how far to go. In
    a model, layers for which no separable convolution would be cheaper stay as they are, as do
    grouped convolutions, subclasses of `Conv2D` and layers that are out of reach; the report says
    which and why. A layer given by itself is always replaced.

    Args:
        layer_or_model: a built `keras.layers.Conv2D`, or a Sequential or Functional model, in which
            models may be nested and layers shared, or one of a class derived from these that has
            no constructor of its own. It is left as it is.
        rank: the depth multiplier of every layer; one above full rank is full rank.
        energy: the part of each layer's squared norm to keep, in (0, 1].
        max_error: the relative error to allow each layer, at least 0:
            ``energy = 1 - max_error**2``.
        flops: the multiply-adds to come down to, of the convolutions and dense layers for one
            picture: a float in (0, 1] is a fraction of what they are, an integer their number.
        parameters: the number of weights to come down to, as a fraction or a number, like `flops`.
        data: what the model (or the layer) takes as input: an array, or the structure of arrays
            that a model of several inputs takes; or None.
        verify: whether to compare the new model's predictions with those of the given one, computed
            with the low-rank kernels, before it is returned. True makes inputs for the model; or
            inputs, as arrays that it takes.

    Returns:
        ``(model, report)``. The model has the class, names and weights of the one given, and is
        compiled alike; its optimizer starts anew where kernels were replaced.

    Raises:
        ValueError: a layer that cannot be factorized, such as a grouped convolution; a model that
            cannot be copied, or whose copy predicts something else; not exactly one goal, one out
            of range, or a budget out of reach.
        TypeError: `layer_or_model` is neither a layer nor a model, or a goal is no number.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3)])
        >>> smaller, report = factorize(model, flops=0.4)
        >>> smaller.layers[0].depth_multiplier
        2
        >>> report.multiply_adds
        (15552, 5400)

    Source: Guo et al., Network Decoupling, 2018, https://arxiv.org/abs/1808.05517; Chollet,
        Xception, 2017, https://arxiv.org/abs/1610.02357; Howard et al., MobileNets, 2017,
        https://arxiv.org/abs/1704.04861
    """
    goal = goal_of(rank, energy, max_error, flops, parameters)
    if data is not None:
        data = check_data(data)
    if isinstance(layer_or_model, keras.Model):
        return _factorize_model(layer_or_model, goal, data, verify)
    if isinstance(layer_or_model, keras.layers.Layer):
        return _factorize_layer(layer_or_model, goal, data)
    raise TypeError(
        "layer_or_model must be a keras.layers.Conv2D or a keras.Model. "
        f"Received: layer_or_model of type {type(layer_or_model).__name__}"
    )


def _factorize_layer(layer: Any, goal: Goal, data: Any) -> Factorized:
    started = time.perf_counter()
    if not isinstance(layer, keras.layers.Conv2D):
        raise ValueError(
            "layer_or_model must be a keras.layers.Conv2D or a model with some. "
            f"Received: {layer.name!r}, a {type(layer).__name__}"
        )
    reason = refusal(layer)
    if reason:
        raise ValueError(f"{layer.name!r} cannot be factorized: {reason}.")
    convolution = Candidate.of(layer, layer.name)
    convolution.pixels = _pixels(layer, data)
    moments = None
    with progress() as track:
        if data is not None:
            moments = convolution.moments(len(keras.tree.flatten(data)[0]))
            for batch in track(batches(data), "data"):
                moments.add(keras.tree.flatten(batch)[0])
        options = options_of(convolution, goal, moments, convolution.full_rank, track)
    (option,) = choose([options], goal, goal.cost(convolution, None))
    assert option.rank is not None
    new = convolution.separable(convolution.fits[option.rank])
    row = row_of(convolution, option)
    seconds = time.perf_counter() - started
    totals = row.parameters, row.multiply_adds
    report = Report(layer.name, [row], *totals, None, data is not None, seconds)
    return Factorized(new, report)


def _pixels(layer: Any, data: Any) -> int:
    """The output pixels of a layer for one picture; 1 where the picture's size is not known."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    if data is not None:
        shape = keras.tree.flatten(data)[0].shape
    if shape is None or None in shape[1:]:
        return 1
    output = layer.compute_output_shape((1, *shape[1:]))
    return int(np.prod(output)) // layer.filters


def _factorize_model(model: Any, goal: Goal, data: Any, verify: Any) -> Factorized:
    started = time.perf_counter()
    if not is_open(model):
        raise ValueError(
            "A model must be Sequential or Functional, without a constructor of its own, for its "
            "layers to be replaced; give the Conv2D layers of another one by one. "
            f"Received: {model.name!r}, a {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            f"The model must be built: call it on an input first. Received: {model.name!r}"
        )
    found, kept = _find(model)
    one, costs = _measure(model, data)
    if one is None and goal.name == "flops":
        raise ValueError(
            f"How much {model.name!r} computes is not known, since no input that it takes could be "
            "made for it: give some as data, or another goal than flops."
        )
    everything = sum(costs.values())
    for convolution in found:
        convolution.pixels = costs.get(id(convolution.layer), 0) // convolution.kernel.size
    with progress() as track:
        layers = []
        for group in passes(found) if data is not None else [found]:
            moments: dict[int, Moments] = {}
            if data is not None:
                pictures = len(keras.tree.flatten(data)[0])
                moments = {id(c.layer): c.moments(pictures) for c in group}
                with untouched(model):
                    gather_moments(model, track(batches(data), "data"), moments)
            for c in track(group, "factorize"):
                options = options_of(c, goal, moments.get(id(c.layer)), c.cheaper, track)
                layers.append([*options, Option(None, goal.cost(c, None), 0.0)])
    total = everything if goal.name == "flops" else model.count_params()
    chosen = choose(layers, goal, total)

    pairs = [(c, o) for c, o in zip(found, chosen, strict=True) if o.rank is not None]
    new = {id(c.layer): c.separable(c.fits[o.rank]) for c, o in pairs if o.rank is not None}
    copy = copy_model(model, new)
    settle_jit(copy)
    rows = {c.path: row_of(c, o, goal) for c, o in zip(found, chosen, strict=True)}
    for path, layer, reason in kept:
        size = layer.count_params() if layer.built else 0
        needed = costs.get(id(layer), 0)
        rank = full_rank(layer.kernel.shape) if layer.built else 0
        rows[path] = LayerReport(path, None, rank, (size, size), (needed, needed), 0.0, 0.0, reason)
    saved = sum(c.multiply_adds(None) - c.multiply_adds(o.rank) for c, o in pairs)
    seconds = time.perf_counter() - started
    report = Report(
        model.name,
        [rows[path] for path, _, _ in _walk(model) if path in rows],
        (model.count_params(), copy.count_params()),
        (everything, everything - saved),
        None if one is None else (_milliseconds(model, one), _milliseconds(copy, one)),
        data is not None,
        seconds,
    )
    values = [v for c, o in pairs if o.rank is not None for v in c.approximated(c.fits[o.rank])]
    report.verification = check_copy(model, copy, verify, title="factorize", values=values)
    return Factorized(copy, report)


def _measure(model: Any, data: Any) -> tuple[Any, dict[int, int]]:
    """An input that the model takes, and its costs; None and no costs where there is no such input.

    The costs are the multiply-adds of all uses of a convolution or dense layer for one example, by
    the layer's id.
    """
    try:
        for inputs in single_inputs(model, data):
            try:
                return inputs, _multiply_adds(model, inputs)
            # The engines raise different exceptions for shapes that do not fit.
            except Exception:
                if data is not None:
                    raise
    except InputsError:
        pass
    return None, {}


def _multiply_adds(model: Any, inputs: Any) -> dict[int, int]:
    try:
        made = calls(model, lambda: pass_through(model, inputs))
    except Exception:  # a layer may need values, which JAX has not while tracing
        made = calls(model, lambda: run(model, inputs))
    needed: dict[int, int] = {}
    for call in made:
        needed[id(call.layer)] = needed.get(id(call.layer), 0) + cost(call).multiply_adds
    examples = len(keras.tree.flatten(inputs)[0])
    return {layer: number // examples for layer, number in needed.items()}


def _walk(model: Any, prefix: str = "") -> Iterator[tuple[str, Any, str | None]]:
    """(path, layer, owner) of all layers; the owner, or None, is a layer that encloses it."""
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if is_open(layer):
            yield from _walk(layer, f"{path}/")
            continue
        yield path, layer, None
        for inner in layer._flatten_layers(include_self=False):
            yield f"{path}/{inner.name}", inner, path


def _find(model: Any) -> tuple[list[Candidate], list[tuple[str, Any, str]]]:
    """The convolutions to factorize, and (path, layer, reason) of the others."""
    found: dict[int, Candidate] = {}
    kept: dict[int, tuple[str, Any, str]] = {}
    for path, layer, owner in _walk(model):
        if not isinstance(layer, keras.layers.Conv2D) or id(layer) in {**found, **kept}:
            continue
        reason = refusal(layer)
        if owner and not reason:
            reason = f"it is inside {owner!r}, which cannot be taken apart"
        if reason:
            kept[id(layer)] = path, layer, reason
        else:
            found[id(layer)] = Candidate.of(layer, path)
    return list(found.values()), list(kept.values())


def _milliseconds(model: Any, picture: Any, runs: int = 5) -> float:
    """The least time of a few predictions of one picture."""
    times = []
    with restored(model):
        model.steps_per_execution = 1  # PyTorch needs it
        for _ in range(1 + runs):
            start = time.perf_counter()
            model.predict_on_batch(picture)
            times.append(time.perf_counter() - start)
    return 1000 * min(times[1:])
