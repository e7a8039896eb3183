"""Replaces ordinary convolutions of a PyTorch network by separable ones, in place.

The mathematics, the goals and the report are those of Keras' models: `sepconv.models.lowrank`,
`goals`, `ranks` and `factorize_report`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from sepconv.geometry import conv_spec
from sepconv.models.factorizable import Factorizable
from sepconv.models.factorize_report import LayerReport, Report
from sepconv.models.goals import Goal, choose, goal_of, options_of, passes, progress, row_of
from sepconv.models.lowrank import Factors, Moments, full_rank
from sepconv.models.ranks import Option
from sepconv.modules.convolution import Conv2d, geometry_of
from sepconv.modules.separable import SeparableConv2d
from sepconv.modules.verify import as_arguments, check_outputs, evaluated, outputs_of

__all__ = ["Factorized", "factorize"]

#: Numbers in a batch of data, about, and the most examples in one.
_BATCH_NUMBERS, _MOST_IN_A_BATCH = 2_000_000, 256

_COSTLY = nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear


class Factorized(NamedTuple):
    """The result of `factorize`.

    Attributes:
        module: the module that was given; the new one where that is a convolution itself.
        report: a line for each convolution; prints as a table.
    """

    module: nn.Module
    report: Report


@dataclass
class _Candidate(Factorizable):
    """An ordinary convolution of PyTorch's, and what is known of it."""

    conv: Any = None

    @classmethod
    def of(cls, conv: nn.Conv2d, path: str) -> _Candidate:
        kernel = conv.weight.detach().double().cpu().numpy().transpose(2, 3, 1, 0)
        found = geometry_of(conv)
        assert found is not None  # or it would have been refused
        spec = conv_spec(*found, "channels_first")
        biased = conv.bias is not None
        return cls(path, kernel, spec, biased, biased, conv=conv)

    def separable(self, factors: Factors) -> SeparableConv2d:
        """The pair of convolutions with the factors as their weights."""
        conv: nn.Conv2d = self.conv
        weight, bias = conv.weight, conv.bias
        new = SeparableConv2d(
            weight.shape[1],
            weight.shape[0],
            tuple(weight.shape[2:]),
            conv.stride,
            conv.padding,
            conv.dilation,
            factors.rank,
            bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        depthwise, pointwise = new.depthwise, new.pointwise
        taps = factors.depthwise_kernel.transpose(2, 3, 0, 1)
        with torch.no_grad():
            depthwise.weight.copy_(_tensor(taps).reshape(depthwise.weight.shape))
            mixes = factors.pointwise_kernel.transpose(3, 2, 0, 1)
            pointwise.weight.copy_(_tensor(mixes))
            if bias is not None and pointwise.bias is not None:
                pointwise.bias.copy_(bias + _tensor(factors.bias).to(bias))
                pointwise.bias.requires_grad_(bias.requires_grad)
        for part in (depthwise, pointwise):
            part.weight.requires_grad_(weight.requires_grad)
        return new.train(conv.training)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def factorize(
    module: nn.Module,
    example_inputs: Any = None,
    *,
    rank: int | None = None,
    energy: float | None = None,
    max_error: float | None = None,
    flops: int | float | None = None,
    parameters: int | float | None = None,
    data: Any = None,
    verify: Any = True,
) -> Factorized:
    """Replaces `torch.nn.Conv2d` by separable convolutions, in place.

    As `sepconv.models.factorize.factorize` does of Keras' models: each becomes a
    `sepconv.modules.SeparableConv2d`, a depthwise convolution with `rank` kernels a channel and a
    1x1 convolution, which computes nearly the same with less work. With `data` it is the output on
    that data that is approximated, in evaluation mode, and not the kernel.

    The network changes: an optimizer must be made anew, since its parameters are others. To keep it
    as it is, factorize a copy: ``factorize(copy.deepcopy(module), ...)``. Grouped convolutions,
    derived classes, parametrized ones, those with hooks, and those for which no separable
    convolution would be cheaper stay as they are; the report says why.

    Args:
        module: a network, or a `torch.nn.Conv2d`.
        example_inputs: a tensor, or a tuple of what the module is called with; for counting its
            work, for timing and for the comparison. None takes an example of `data`, if any.
        rank: as for `sepconv.models.factorize.factorize`, and so the next four.
        energy: see there.
        max_error: see there.
        flops: see there; it needs `example_inputs` or `data`.
        parameters: see there.
        data: None, or a tensor of several examples, or a tuple of such, for calibration.
        verify: whether to compare outputs with those of the network with low-rank kernels, on the
            example inputs; or other inputs to do so with.

    Returns:
        The module and the report.

    Raises:
        TypeError: `module` is no module, or a goal is no number.
        ValueError: as for that function. Where outputs differ, the network is as it was.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
        >>> network, report = factorize(network, rank=2)
        >>> network[2]
        SeparableConv2d(
          (depthwise): Conv2d(16, 32, kernel_size=(3, 3), stride=(1, 1), groups=16, bias=False)
          (pointwise): Conv2d(32, 16, kernel_size=(1, 1), stride=(1, 1))
        )
    """
    started = time.perf_counter()
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            "module must be a torch.nn.Module that is not compiled by torch.jit. "
            f"Received: {type(module).__name__}"
        )
    goal = goal_of(rank, energy, max_error, flops, parameters)
    given = None if data is None else _checked(data)
    examples = None if example_inputs is None else as_arguments(example_inputs)
    if examples is None and given is not None:
        examples = tuple(x[:1] for x in given)
    if examples is None and goal.name == "flops":
        raise ValueError(
            "flops needs example_inputs or data, since a convolution's work depends on the size of "
            "its images. Received: neither"
        )
    found, kept = _find(module)
    costs = {} if examples is None else _multiply_adds(module, examples)
    for convolution in found:
        convolution.pixels = max(1, costs.get(id(convolution.conv), 0) // convolution.kernel.size)
    everything = sum(costs.values()) if costs else sum(c.multiply_adds(None) for c in found)
    chosen = _choose(module, found, goal, given, everything)

    pairs = [(c, o.rank) for c, o in zip(found, chosen, strict=True) if o.rank is not None]
    before = _count(module), _milliseconds(module, examples)
    changed, verification = _replaced(module, pairs, examples, verify)
    rows = {c.path: row_of(c, o, goal) for c, o in zip(found, chosen, strict=True)}
    for path, conv, reason in kept:
        size = _count(conv)
        needed = costs.get(id(conv), 0)
        rows[path] = LayerReport(
            path, None, _full_rank(conv), (size, size), (needed, needed), 0.0, 0.0, reason
        )
    saved = sum(c.multiply_adds(None) - c.multiply_adds(rank) for c, rank in pairs)
    after = _milliseconds(changed, examples)
    times = None if before[1] is None or after is None else (before[1], after)
    report = Report(
        type(module).__name__,
        list(rows.values()),
        (before[0], _count(changed)),
        (everything, everything - saved),
        times,
        given is not None,
        time.perf_counter() - started,
    )
    report.verification = verification
    return Factorized(changed, report)


def _checked(data: Any) -> tuple[Tensor, ...]:
    """Data as tensors of one length."""
    tensors = tuple(torch.as_tensor(x) for x in as_arguments(data))
    lengths = {x.shape[:1] for x in tensors}
    if len(lengths) != 1 or not all(lengths.pop()) or tensors[0].dim() == 0:
        raise ValueError(
            "data must be a tensor of examples, or several of one length, that is not empty. "
            f"Received: shapes {[tuple(x.shape) for x in tensors]}"
        )
    return tensors


def _batches(data: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """Data in parts of moderate size."""
    numbers = max(1, max(x.numel() for x in data) // len(data[0]))
    size = int(np.clip(_BATCH_NUMBERS // numbers, 1, _MOST_IN_A_BATCH))
    return list(zip(*(x.split(size) for x in data), strict=True))


def _find(module: nn.Module) -> tuple[list[_Candidate], list[tuple[str, nn.Conv2d, str]]]:
    """The convolutions to factorize, and (path, module, reason) of the others."""
    found: list[_Candidate] = []
    kept: list[tuple[str, nn.Conv2d, str]] = []
    owners = Counter(id(p) for part in module.modules() for p in part.parameters(recurse=False))
    for path, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            reason = _refusal(part)
            if reason is None and any(owners[id(p)] > 1 for p in part.parameters()):
                reason = "another module has its weight or bias, too, and the two would part"
            if reason is None:
                found.append(_Candidate.of(part, path))
            else:
                kept.append((path, part, reason))
    return found, kept


def _refusal(conv: nn.Conv2d) -> str | None:
    """Why a convolution cannot be factorized; None where it can."""
    if isinstance(conv, LazyModuleMixin):
        return "lazy: its channels are known after its first call"
    if hasattr(conv, "parametrizations") or conv._parameters.get("weight") is None:
        return "its weight is computed from others"
    if type(conv) not in (nn.Conv2d, Conv2d) or {"forward", "_conv_forward"} & set(vars(conv)):
        return "a class of its own, which may compute something else"
    if conv.groups != 1:
        return f"grouped (groups={conv.groups}): a separable convolution cannot express it"
    if conv.padding_mode != "zeros":
        return f"pads by {conv.padding_mode!r}, not by zeros"
    if _has_hooks(conv):
        return "it has hooks, which would be lost"
    if set(conv._parameters) - {"weight", "bias"} or conv._buffers or conv._modules:
        return "it holds parameters, buffers or modules besides its own, which would be lost"
    if not conv.weight.is_floating_point():
        return f"its weight is {conv.weight.dtype}"
    if conv.weight.is_meta:
        return "on the device meta, where its weight has no values"
    if geometry_of(conv) is None:
        return "of a stride, padding or dilation that PyTorch refuses"
    return None


def _has_hooks(conv: nn.Conv2d) -> bool:
    """Whether anything is to be called with the module, its state or its parameters' gradients."""
    own = (value for name, value in vars(conv).items() if name.endswith(("_hooks", "_pre_hooks")))
    of_gradients = (p._backward_hooks for p in conv.parameters())
    after = (getattr(p, "_post_accumulate_grad_hooks", None) for p in conv.parameters())
    return any(map(bool, (*own, *of_gradients, *after)))


def _full_rank(conv: Any) -> int:
    weight = conv._parameters.get("weight")
    if weight is None or isinstance(conv, LazyModuleMixin):
        return 0
    return full_rank((*weight.shape[2:], weight.shape[1], weight.shape[0]))


@contextmanager
def _watched(module: nn.Module, kinds: Any, note: Any) -> Iterator[None]:
    """A context in which `note` gets each call of modules: the module, its inputs, its output."""
    handles = [p.register_forward_hook(note) for p in module.modules() if isinstance(p, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _multiply_adds(module: nn.Module, examples: tuple[Any, ...]) -> dict[int, int]:
    """Those of all uses of a convolution or linear module for one example, by its id."""
    needed: dict[int, int] = {}

    def note(part: Any, inputs: Any, output: Tensor) -> None:
        each = part.in_features if isinstance(part, nn.Linear) else part.weight[0].numel()
        needed[id(part)] = needed.get(id(part), 0) + output.numel() * each

    with _watched(module, _COSTLY, note):
        outputs_of(module, examples)
    count = next((len(x) for x in examples if isinstance(x, Tensor) and x.dim()), 1)
    return {part: number // max(1, count) for part, number in needed.items()}


def _choose(
    module: nn.Module,
    found: list[_Candidate],
    goal: Goal,
    data: tuple[Tensor, ...] | None,
    everything: int,
) -> list[Option]:
    """What becomes of each convolution."""
    layers: list[list[Option]] = []
    alone = isinstance(module, nn.Conv2d)
    with progress() as track:
        for group in passes(found) if data is not None else [found]:
            moments: dict[int, Moments] = {}
            if data is not None:
                moments = {id(c.conv): c.moments(len(data[0])) for c in group}
                _gather(module, track(_batches(data), "data"), moments)
            for c in track(group, "factorize"):
                highest = c.full_rank if alone else c.cheaper
                options = options_of(c, goal, moments.get(id(c.conv)), highest, track)
                layers.append([*options, Option(None, goal.cost(c, None), 0.0)])
    total = everything if goal.name == "flops" else _count(module)
    return choose(layers, goal, total)


def _gather(module: nn.Module, data: Iterable[Any], moments: dict[int, Moments]) -> None:
    """Adds the inputs of convolutions to their moments, by their ids."""

    def note(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if id(part) in moments:
            x = inputs[0] if inputs[0].dim() == 4 else inputs[0][None]
            moments[id(part)].add(x.detach().double().cpu().numpy())

    with _watched(module, nn.Conv2d, note), evaluated(module):
        for batch in data:
            module(*batch)


def _count(module: nn.Module) -> int:
    """The number of weights, as far as they have sizes."""
    sized = (p for p in module.parameters() if not isinstance(p, UninitializedParameter))
    return sum(parameter.numel() for parameter in sized)


def _milliseconds(
    module: nn.Module, examples: tuple[Any, ...] | None, runs: int = 5
) -> float | None:
    """The least time of a few calls on one example."""
    if examples is None:
        return None
    one = tuple(x[:1] if isinstance(x, Tensor) and x.dim() else x for x in examples)
    times = []
    with evaluated(module):
        for _ in range(1 + runs):
            start = time.perf_counter()
            module(*one)
            times.append(time.perf_counter() - start)
    return 1000 * min(times[1:])


def _replaced(
    module: nn.Module,
    pairs: list[tuple[_Candidate, int]],
    examples: tuple[Any, ...] | None,
    verify: Any,
) -> tuple[nn.Module, str]:
    """The module with separable convolutions, and how that was verified."""
    inputs = examples if isinstance(verify, bool) else as_arguments(verify)
    if verify is False or inputs is None:
        why = "verify=False" if verify is False else "no inputs; example_inputs compares outputs"
        return _put(module, pairs)[0], f"not verified: {why}"
    with _approximated(pairs):
        expected = outputs_of(module, inputs)
    changed, undo = _put(module, pairs)
    try:
        try:
            after = outputs_of(changed, inputs)
        except Exception as error:  # code of the network's own may raise anything
            raise ValueError(
                "factorize: the network does not compute with separable convolutions in the place "
                "of its own, as where its code uses a convolution's weight: "
                f"{type(error).__name__}: {error}"
            ) from error
        said = check_outputs(expected, after, "factorize")
    except BaseException:
        for owner, name, old in undo:
            owner._modules[name] = old
        raise
    return changed, said


@contextmanager
def _approximated(pairs: list[tuple[_Candidate, int]]) -> Iterator[None]:
    """A context in which convolutions have the low-rank kernels as ordinary ones."""
    kept = []
    with torch.no_grad():
        for candidate, rank in pairs:
            factors, conv = candidate.fits[rank], candidate.conv
            kept.append((conv, conv.weight.detach().clone(), conv.bias))
            conv.weight.copy_(_tensor(factors.kernel().transpose(3, 2, 0, 1)))
            if conv.bias is not None:
                kept[-1] = (*kept[-1][:2], conv.bias.detach().clone())
                conv.bias.add_(_tensor(factors.bias).to(conv.bias))
    try:
        yield
    finally:
        with torch.no_grad():
            for conv, weight, bias in kept:
                conv.weight.copy_(weight)
                if bias is not None:
                    conv.bias.copy_(bias)


def _put(
    module: nn.Module, pairs: list[tuple[_Candidate, int]]
) -> tuple[nn.Module, list[tuple[nn.Module, str, Any]]]:
    """The module with separable convolutions at every place of an ordinary one, and what was there.

    A convolution that is the module itself has no place.
    """
    new = {id(c.conv): c.separable(c.fits[rank]) for c, rank in pairs}
    undo = []
    for owner in list(module.modules()):
        for name, part in list(owner._modules.items()):
            if id(part) in new:
                undo.append((owner, name, part))
                owner._modules[name] = new[id(part)]
    return new.get(id(module), module), undo
