"""Lowers a PyTorch module to a network: `torch.export`, then its graph operation by operation."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sepconv.modules.lowering import axes, convolutions, elementwise, programs, reshaping
from sepconv.modules.lowering.call import Call, array_of, path_of, refusal, size_of
from sepconv.modules.lowering.values import Value, Writer
from sepconv.modules.selecting import stock_class
from sepconv.program.building.builder import Builder
from sepconv.program.building.narrow import narrowed
from sepconv.program.building.refusal import NotLowered
from sepconv.program.building.simplify import simplify
from sepconv.program.file import Contents
from sepconv.program.network import Input, Network
from sepconv.program.shapes import Shape

__all__ = ["lower", "lowered"]

_TABLE = {
    **convolutions.OPERATIONS,
    **elementwise.OPERATIONS,
    **axes.OPERATIONS,
    **reshaping.OPERATIONS,
    **programs.OPERATIONS,
}

#: Operations that check something, and give nothing.
_CHECKS = (
    "aten._assert_tensor_metadata.default",
    "aten._assert_scalar.default",
    "aten.sym_constrain_range_for_size.default",
)

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def lower(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    dynamic_shapes: Any = None,
    dtype: str | None = None,
) -> Network:
    """Lowers a module in evaluation mode, with the batch open.

    Args:
        module: which `torch.export` can read. It is left as it was.
        example_inputs: what it is called with.
        dynamic_shapes: as for `torch.export.export`; None for inputs whose first axis is open.
        dtype: ``"float32"``, ``"float64"`` or ``"bfloat16"`` to compute in; None for the module's
            own.

    Returns:
        A `sepconv.program.network.Network`, which shares nothing with the module. Its inputs and
        outputs have PyTorch's order of axes.

    Raises:
        ValueError: `torch.export` cannot read the module, its batch cannot be open, or it computes
            in another dtype; and `NotLowered`, a ValueError, where an operation cannot be a part of
            a network. It names the operation and the module that it is in.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        >>> network = lower(layers, (torch.zeros(1, 3, 8, 8),))
        >>> [step.operation for step in network.steps]
        ['transpose', 'convolution', 'transpose']
        >>> network.inputs[0].shape
        (None, 3, 8, 8)
    """
    return lowered(module, example_inputs, dynamic_shapes=dynamic_shapes, dtype=dtype).network


def lowered(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    dynamic_shapes: Any = None,
    dtype: str | None = None,
) -> Contents:
    """The network of a module as `lower` gives it, and the notes beside it.

    There are some where the module is a program and nothing else: all that its file has.

    Raises:
        ValueError: see `lower`.
    """
    if dtype not in (None, "bfloat16", *_DTYPES.values()):
        raise ValueError(
            "dtype must be 'float32', 'float64', 'bfloat16' or None for the module's own. "
            f"Received: dtype={dtype!r}"
        )
    program = _exported(module, tuple(example_inputs), dynamic_shapes)
    whole = programs.whole_program(module, dtype)
    if whole is not None:
        return whole
    halves = dtype == "bfloat16"
    reader = _Reader(program, "float32" if halves else dtype, dynamic_shapes is None)
    simple = simplify(reader.network())
    return Contents(narrowed(simple) if halves else simple, {})


def _exported(module: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> Any:
    """The graph of a module in evaluation mode, in which no operation changes a tensor in place."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise ValueError(
                f"compile: {name!r} is on the device meta, where it has no values. Give the module "
                "its weights first, as by to_empty and load_state_dict."
            )
    # torch.export takes one tensor that is given twice for one input.
    inputs = torch.utils._pytree.tree_map_only(Tensor, torch.clone, inputs)
    if dynamic_shapes is None:
        inputs = torch.utils._pytree.tree_map(_several, inputs)
        # By the names of arguments, since `*args` is one of them.
        named = dict(inspect.signature(module.forward).bind(*inputs).arguments)
        dynamic_shapes = torch.utils._pytree.tree_map(
            lambda x: {0: torch.export.Dim.AUTO} if isinstance(x, Tensor) and x.ndim else None,
            named,
        )
    modes = [(part, part.training, type(part)) for part in module.modules()]
    module.eval()
    for part, _, kind in modes:
        part.__class__ = stock_class(kind)
    try:
        with torch.no_grad():
            # By running it, as newer versions do unasked; older ones would read its bytecode.
            found = torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes, strict=False)
            # With an empty table, operations stay what the module called, but for those in place.
            return found.run_decompositions({})
    except Exception as error:
        leaves = torch.utils._pytree.tree_leaves(inputs)
        shapes = [tuple(x.shape) for x in leaves if isinstance(x, Tensor)]
        raise ValueError(
            "compile: torch.export cannot read this module, or not with these inputs, of the "
            f"shapes {shapes}. A module whose forward decides by the values of its inputs must be "
            "written without; where the first axis of an input is no batch, give dynamic_shapes. "
            f"torch.export says: {type(error).__name__}: {error}"
        ) from error
    finally:
        for part, training, kind in modes:
            part.training, part.__class__ = training, kind


def _several(x: Any) -> Any:
    """An input with more than one example, since PyTorch takes a size of 1 for a constant."""
    return torch.cat([x, x]) if isinstance(x, Tensor) and x.ndim and x.shape[0] == 1 else x


class _Reader:
    """Reads an exported graph.

    Args:
        program: a `torch.export.ExportedProgram`.
        dtype: to compute in, or None.
        open_batch: whether the first axis of every input must be open.
    """

    def __init__(self, program: Any, dtype: str | None, open_batch: bool) -> None:
        self._program, self._signature = program, program.graph_signature
        self._found: dict[torch.fx.Node, Any] = {}
        self._inputs: list[Input] = []
        nodes = list(program.graph.nodes)
        self._given = [
            node for node in nodes if node.op == "placeholder" and self._constant(node) is None
        ]
        for node in self._given:
            self._inputs.append(self._input(node, open_batch))
        self._own = self._dtype(nodes)
        self._writer = Writer(Builder(dtype or _DTYPES[self._own], self._inputs))

    def _constant(self, node: torch.fx.Node) -> Tensor | None:
        """The parameter, buffer or constant that a placeholder is."""
        for names, source in (
            (self._signature.inputs_to_parameters, self._program.state_dict),
            (self._signature.inputs_to_buffers, self._program.state_dict),
            (self._signature.inputs_to_buffers, self._program.constants),
            (self._signature.inputs_to_lifted_tensor_constants, self._program.constants),
        ):
            if names.get(node.name) in source:
                return source[names[node.name]].detach().cpu()
        return None

    def _input(self, node: torch.fx.Node, open_batch: bool) -> Input:
        tensor = node.meta.get("val")
        if not isinstance(tensor, Tensor) or not tensor.ndim:
            raise ValueError(
                "compile: example_inputs must be tensors with one axis at least. Received: "
                f"{type(tensor).__name__} for {node.name!r}"
            )
        shape = tuple(size_of(size) for size in tensor.shape)
        if open_batch and shape[0] is not None:
            raise ValueError(
                f"compile: the module works with {shape[0]} examples of {node.name!r} only, so its "
                "batch cannot be open. Give dynamic_shapes for inputs whose first axis is fixed: "
                "as many empty dicts, ({},) for one input."
            )
        return Input(node.name, shape)

    def _dtype(self, nodes: Sequence[torch.fx.Node]) -> torch.dtype:
        """The floating dtype of all tensors."""
        tensors = [node.meta.get("val") for node in nodes]
        found = {t.dtype for t in tensors if isinstance(t, Tensor) and t.is_floating_point()}
        if len(found) == 1 and found <= set(_DTYPES):
            return found.pop()
        raise ValueError(
            "compile: the module must compute in float32 or in float64 throughout; half precision "
            "and mixed dtypes are not supported: give module.float(), and dtype='bfloat16' for a "
            "program of bfloat16. "
            f"Received: a module that computes in {sorted(map(str, found))}"
        )

    def network(self) -> Network:
        """The network, before it is simplified."""
        for i, node in enumerate(self._given):
            self._found[node] = self._writer.as_plain(i)
        for node in self._program.graph.nodes:
            if node.op == "placeholder" and node not in self._found:
                self._found[node] = self._constant(node)
            elif node.op == "get_attr":
                raise refusal(node, "it holds a graph of its own, as control flow does")
            elif node.op == "call_function" and str(node.target) not in _CHECKS:
                self._found[node] = self._read(node)
        builder = self._writer.builder
        outputs = self._outputs()
        names = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
        return Network(builder.dtype, self._inputs, builder.steps, outputs, names, builder.tensors)

    def _outputs(self) -> list[int]:
        """The numbers of what the module gives."""
        changed = [
            *self._signature.buffers_to_mutate.values(),
            *self._signature.user_inputs_to_mutate.values(),
        ]
        if changed:
            raise ValueError(
                "compile: the module changes buffers or inputs when it is called, which a program "
                f"cannot. Received: a module that changes {sorted(changed)}"
            )
        (output,) = (node for node in self._program.graph.nodes if node.op == "output")
        numbers = []
        for node in output.args[0]:
            value = self._found.get(node) if isinstance(node, torch.fx.Node) else node
            if isinstance(value, Tensor) and value.dtype == self._own:
                value = self._writer.as_plain(self._writer.builder.constant(array_of(value)))
            if not isinstance(value, Value):
                raise ValueError(
                    "compile: the module must give tensors that depend on its inputs. Received: "
                    f"{value!r} among its outputs"
                )
            numbers.append(self._writer.plain(value))
        return numbers

    def _read(self, node: torch.fx.Node) -> Any:
        """What a node gives: values, constants, or sizes."""
        result = node.meta.get("val")
        if isinstance(result, (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)):
            return result
        args: Any = torch.fx.node.map_arg(node.args, self._found.__getitem__)
        kwargs: Any = torch.fx.node.map_arg(node.kwargs, self._found.__getitem__)
        leaves = torch.utils._pytree.tree_leaves(
            (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Value)
        )
        if node.target is operator.getitem:
            return args[0][args[1]]
        if torch.Tag.nondeterministic_seeded in node.target.tags:  # type: ignore[union-attr]
            raise refusal(node, "it draws random numbers, which a program has not")
        if not any(isinstance(leaf, (Value, torch.SymInt)) for leaf in leaves):
            return node.target(*args, **kwargs)  # type: ignore[operator]
        write = _TABLE.get(str(node.target))
        if write is None:
            raise refusal(node, "it is not known")
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        named = {a.name: a.default_value for a in schema if a.has_default_value()}
        named = {a.name: named.get(a.name) for a in schema}
        named.update(zip((a.name for a in schema), args, strict=False))
        named.update(kwargs)
        return self._write(node, write, Call(self._writer, node, named))

    def _write(self, node: torch.fx.Node, write: Any, call: Call) -> Any:
        self._check_dtype(node)
        path, _ = path_of(node)
        self._writer.builder.name = path or node.name
        try:
            value = write(call)
        except NotLowered:
            raise
        except ValueError as error:  # shapes that do not fit each other
            raise refusal(node, str(error)) from error
        result = node.meta["val"]
        if not isinstance(result, (list, tuple)):
            self._check_shape(node, value, result)
            return value
        # Of a normalization, what follows its result is for training.
        values = value if isinstance(value, list) else [value]
        for each, tensor in zip(values, result, strict=False):
            self._check_shape(node, each, tensor)
        return values

    def _check_dtype(self, node: torch.fx.Node) -> None:
        """Refuses results that are not of the module's own dtype, unless they are inputs moved."""
        result = node.meta["val"]
        first = result[0] if isinstance(result, (list, tuple)) else result
        if first.dtype == self._own:
            return
        source = node.args[0]
        before = source.meta.get("val") if isinstance(source, torch.fx.Node) else None
        moves = str(node.target) in reshaping.OPERATIONS
        if not moves or not isinstance(before, Tensor) or before.dtype != first.dtype:
            raise refusal(node, f"its results are {first.dtype}, those of the module {self._own}")

    def _check_shape(self, node: torch.fx.Node, value: Value, tensor: Tensor) -> None:
        """Holds a shape against PyTorch's, as far as both know it."""
        found: Shape = self._writer.shape(value)
        expected = tuple(size_of(size) for size in tensor.shape)
        pairs = zip(found, expected, strict=False)
        if len(found) != len(expected) or any(
            None not in pair and len(set(pair)) > 1 for pair in pairs
        ):
            raise refusal(node, f"its output would have the shape {found} instead of {expected}")
