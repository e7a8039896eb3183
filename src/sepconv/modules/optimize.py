"""Optimizes a PyTorch module for inference: the network becomes one native call, in a module."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepconv.models.record import Record
from sepconv.modules.compile import compile as compile_module
from sepconv.modules.program_module import ProgramModule, argument_names
from sepconv.modules.verify import as_arguments, evaluated, outputs_of
from sepconv.program.comparing import difference
from sepconv.program.network import Network, Step

__all__ = ["Optimized", "optimize"]


class Optimized(NamedTuple):
    """The result of `optimize`.

    Attributes:
        module: a `sepconv.modules.ProgramModule`.
        record: its steps, and the modules that they were. It prints as a table.
    """

    module: ProgramModule
    record: Record


class _Steps(Record):
    """A record of steps, which are fewer than the modules that they were made of."""

    def __init__(self, modules: int) -> None:
        super().__init__("optimize")
        self._modules = modules

    def _heading(self) -> str:
        return f"{self.title}: {self._modules} modules as {len(self)} steps of one call"


def optimize(
    module: nn.Module,
    example_inputs: Any,
    *,
    dynamic_shapes: Any = None,
    dtype: str | None = None,
    tune: bool = False,
    verify: Any = True,
) -> Optimized:
    """Makes a module that computes the same faster, for inference only.

    It is `sepconv.compile`'s program in a `sepconv.modules.ProgramModule`: normalization is folded
    into convolutions, and a convolution, what follows it to the next one, its activation and a
    residual become one step. Weights are packed once. The whole network is one native call, also
    within other modules, under `torch.compile`, and in what `torch.export` writes.

    Args:
        module: which `torch.export` can read. It stays as it is, and shares no weight with the new
            one.
        example_inputs: a tensor, or a tuple of what the module is called with.
        dynamic_shapes: as for `sepconv.compile`.
        dtype: as for `sepconv.compile`.
        tune: as for `sepconv.compile`.
        verify: as for `sepconv.compile`.

    Returns:
        The new module, which takes what `module` takes and gives what it gives; and a record.

    Raises:
        TypeError: `module` is no module, or there are no `example_inputs`.
        ValueError: as `sepconv.compile`; or the module gives something else than tensors.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layers = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        >>> module, record = optimize(nn.Sequential(*layers), torch.zeros(1, 3, 8, 8))
        >>> print(record)
        optimize: 3 modules as 3 steps of one call, verified
          yes  0  Conv2d     transpose
          yes  2  Hardswish  convolution 3x3, 3 to 8 channels, hard_silu
          yes  2  Hardswish  transpose
        >>> module(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 8, 6, 6])
    """
    program = compile_module(
        module,
        example_inputs,
        dynamic_shapes=dynamic_shapes,
        dtype=dtype,
        tune=tune,
        verify=verify,
    )
    examples = as_arguments(example_inputs)
    with evaluated(module):
        given = module(*examples)
    leaves, structure = pytree.tree_flatten(given)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise ValueError(
            "optimize: the module must give tensors alone. Received: "
            f"{sorted({type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)})} "
            "among its outputs"
        )
    optimized = ProgramModule(
        program,
        outputs=structure,
        example_inputs=examples,
        names=list(argument_names(module))[: len(examples)],
    )
    return Optimized(optimized, _record(module, optimized, program.network, examples, verify))


def _record(
    module: nn.Module,
    optimized: ProgramModule,
    network: Network,
    examples: tuple[Any, ...],
    verify: Any,
) -> Record:
    """The steps, and how far results are from the module's."""
    parts = dict(module.named_modules())
    leaves = [part for part in parts.values() if not any(part.children())]
    record: Record = _Steps(len(leaves))
    for step in network.steps:
        part = parts.get(step.name)
        kind = step.operation if part is None else type(part).__name__
        record.add(step.name, kind, True, described(step, network))
    if verify is False:
        record.verification = "not verified: verify=False"
        return record
    expected, found = (
        [tensor.double().numpy() for tensor in outputs_of(each, examples)]
        for each in (module, optimized)
    )
    apart = difference(expected, found)
    record.verification = f"verified: the outputs differ by at most {apart:.0e} of the largest"
    return record


def described(step: Step, network: Network) -> str:
    """A step in a few words.

    Example:
        >>> softmax = Step("softmax", "classes", (0,), {"axis": 1, "logarithm": False})
        >>> described(softmax, Network("float32", (), (softmax,), (), (), ()))
        'softmax'
    """
    words = [step.operation]
    function = step.attributes.get("function")
    if function is not None:
        words = [function] if step.operation in ("unary", "binary") else [step.operation, function]
    shapes = {part: network.tensors[i].shape for part, i in step.weights.items()}
    depthwise, mixing = shapes.get("depthwise_kernel"), shapes.get("pointwise_kernel")
    if depthwise is not None:
        height, width, channels, multiplier = depthwise
        words.append(f"depthwise {height}x{width}, {channels} channels")
        if multiplier > 1:
            words[-1] += f" of {multiplier}"
    if mixing is not None:
        height, width, channels, filters = mixing
        before = "then " if depthwise is not None else ""
        words.append(f"{before}{height}x{width}, {channels} to {filters} channels")
    if "kernel" in shapes:
        words.append("{} to {} features".format(*shapes["kernel"]))
    text = " ".join(words[:2]) + "".join(f", {word}" for word in words[2:])
    for name in ("depthwise_activation", "activation"):
        activation = step.attributes.get(name, "none")
        if activation != "none":
            text += f", {activation}"
            text += " between" if name == "depthwise_activation" else ""
    if step.operation in ("convolution", "dense") and len(step.inputs) == 2:
        text += ", residual added"
    return text
