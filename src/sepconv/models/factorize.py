"""Replaces ordinary convolutions of a Keras model by separable ones: `sepconv.factorize`.

`lowrank` has the mathematics, `candidate` the layers that a convolution may become, `ranks` the
choice among them; `calibrate` runs the model on data. This module takes the model apart and puts it
together again.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np

from sepconv.geometry import positive_sizes
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
from sepconv.models.inputs import InputsError
from sepconv.models.lowrank import Moments, full_rank
from sepconv.models.ranks import Option, smallest_rank, spend
from sepconv.models.running import pass_through, run
from sepconv.models.untouched import restored, untouched
from sepconv.models.verify import check_copy

__all__ = ["Factorized", "factorize"]

#: The most bytes of moments that are gathered in one pass over the data; more layers take more
#: passes.
_PASS_BYTES = 1 << 30
#: A relative error that is taken for none in float32.
_EXACT = 1e-6


class Factorized(NamedTuple):
    """The result of `factorize`.

    Attributes:
        model: the new model, or the new layer where a layer was given.
        report: a line for each layer; prints as a table.
    """

    model: Any
    report: Report


class _Goal(NamedTuple):
    """The argument of `factorize` that sets the goal, with its value."""

    name: str
    value: Any

    @property
    def is_budget(self) -> bool:
        return self.name in ("flops", "parameters")

    def cost(self, convolution: Candidate, rank: int | None) -> int:
        if self.name == "parameters":
            return convolution.parameters(rank)
        return convolution.multiply_adds(rank)

    def budget(self, total: int) -> int:
        return int(self.value * total) if isinstance(self.value, float) else self.value


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
    goal = _goal(rank, energy, max_error, flops, parameters)
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


def _goal(*values: Any) -> _Goal:
    names = "rank", "energy", "max_error", "flops", "parameters"
    given = [_Goal(n, v) for n, v in zip(names, values, strict=True) if v is not None]
    if len(given) != 1:
        raise ValueError(
            f"Exactly one of {', '.join(names)} must be given. "
            f"Received: {', '.join(goal.name for goal in given) or 'none'}"
        )
    name, value = given[0]
    if name == "rank":
        return _Goal(name, positive_sizes(name, value, 1)[0])
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number. Received: {name}={value!r}") from None
    if name == "max_error":
        if not number >= 0:
            raise ValueError(f"max_error must be at least 0. Received: max_error={value!r}")
        return _Goal(name, number)
    if name != "energy" and hasattr(value, "__index__"):
        if number < 1:
            raise ValueError(f"{name} must be positive. Received: {name}={value!r}")
        return _Goal(name, operator.index(value))
    if not 0 < number <= 1:
        integers = "" if name == "energy" else ", or an integer"
        raise ValueError(f"{name} must be in (0, 1]{integers}. Received: {name}={value!r}")
    return _Goal(name, number)


def _factorize_layer(layer: Any, goal: _Goal, data: Any) -> Factorized:
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
    with _progress() as track:
        if data is not None:
            moments = convolution.moments(len(keras.tree.flatten(data)[0]))
            for batch in track(batches(data), "data"):
                moments.add(keras.tree.flatten(batch)[0])
        options = _options(convolution, goal, moments, convolution.full_rank, track)
    (option,) = _choose([options], goal, goal.cost(convolution, None))
    assert option.rank is not None
    new = convolution.separable(convolution.fits[option.rank])
    row = _row(convolution, option)
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


def _factorize_model(model: Any, goal: _Goal, data: Any, verify: Any) -> Factorized:
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
    with _progress() as track:
        layers = []
        for group in _passes(found) if data is not None else [found]:
            moments: dict[int, Moments] = {}
            if data is not None:
                pictures = len(keras.tree.flatten(data)[0])
                moments = {id(c.layer): c.moments(pictures) for c in group}
                with untouched(model):
                    gather_moments(model, track(batches(data), "data"), moments)
            for c in track(group, "factorize"):
                options = _options(c, goal, moments.get(id(c.layer)), c.cheaper, track)
                layers.append([*options, Option(None, goal.cost(c, None), 0.0)])
    total = everything if goal.name == "flops" else model.count_params()
    chosen = _choose(layers, goal, total)

    pairs = [(c, o) for c, o in zip(found, chosen, strict=True) if o.rank is not None]
    new = {id(c.layer): c.separable(c.fits[o.rank]) for c, o in pairs if o.rank is not None}
    copy = copy_model(model, new)
    settle_jit(copy)
    rows = {c.path: _row(c, o, goal) for c, o in zip(found, chosen, strict=True)}
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


def _passes(convolutions: list[Candidate]) -> Iterator[list[Candidate]]:
    """Groups of convolutions whose moments fit into memory together."""
    group: list[Candidate] = []
    size = 0
    for convolution in convolutions:
        needed = 8 * convolution.kernel[..., 0].size ** 2
        if group and size + needed > _PASS_BYTES:
            yield group
            group, size = [], 0
        group.append(convolution)
        size += needed
    if group:
        yield group


def _options(
    convolution: Candidate,
    goal: _Goal,
    moments: Moments | None,
    highest: int,
    track: Callable[..., Iterable[Any]],
) -> list[Option]:
    """The options of a layer: all of them under a budget, else one, or none."""

    def error(rank: int) -> float:
        return convolution.fit(rank, moments).error

    def option(rank: int) -> Option:
        return Option(rank, goal.cost(convolution, rank), error(rank) ** 2)

    if goal.is_budget:
        ranks = range(1, highest + 1)
        return [option(rank) for rank in track(ranks, convolution.path)]
    if goal.name == "rank":
        rank = min(goal.value, convolution.full_rank)
        return [option(rank)] if rank <= highest else []
    allowed = goal.value if goal.name == "max_error" else np.sqrt(1 - goal.value)
    smallest = smallest_rank(error, max(allowed, _EXACT), highest)
    return [] if smallest is None else [option(smallest)]


def _choose(layers: list[list[Option]], goal: _Goal, total: int) -> list[Option]:
    if not goal.is_budget:
        return [options[0] for options in layers]
    now = sum(options[-1].cost for options in layers if options[-1].rank is None)
    others = total - now if now else 0
    budget = goal.budget(total)
    chosen = spend(layers, budget - others)
    if chosen is None:
        least = others + sum(min(o.cost for o in options) for options in layers)
        what = "multiply-adds" if goal.name == "flops" else "parameters"
        raise ValueError(
            f"{goal.name} must be at least {least} (of {total}): with rank 1 wherever that is "
            f"cheaper so many {what} are left. Received: {goal.name}={goal.value!r}"
        )
    return chosen


def _row(convolution: Candidate, option: Option, goal: _Goal | None = None) -> LayerReport:
    rank, note = option.rank, ""
    error = svd_error = 0.0
    if rank is not None:
        error, svd_error = convolution.fits[rank].error, convolution.fits[rank].svd_error
    elif not convolution.cheaper:
        note = "a separable convolution is no cheaper at any rank"
    elif goal is not None and goal.is_budget:
        note = "the budget leaves it room"
    else:
        note = f"it needs a rank above {convolution.cheaper}, where separable is no cheaper"
    return LayerReport(
        convolution.path,
        rank,
        convolution.full_rank,
        (convolution.parameters(None), convolution.parameters(rank)),
        (convolution.multiply_adds(None), convolution.multiply_adds(rank)),
        error,
        svd_error,
        note,
    )


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


@contextmanager
def _progress() -> Iterator[Callable[..., Iterable[Any]]]:
    """`track(items, title)` yields the items, with a progress bar on a terminal."""

    def plain(items: Iterable[Any], title: str) -> Iterable[Any]:
        return items

    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:
        yield plain
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield plain
        return
    with Progress(console=console, transient=True) as progress:
        yield lambda items, title: progress.track(items, description=title)
