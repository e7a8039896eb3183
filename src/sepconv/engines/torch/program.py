"""A program on PyTorch's tensors: ``sepconv::program``, which a compiled or exported graph calls.

The operation takes the network's file as a tensor of bytes, so that a graph that is saved holds it
among its weights, and opens it where it is loaded. Without a compiler that looks on, the program is
called at once: an operation of Python's costs as much time as a small network.

It has no derivative; where one is asked for, that is an error.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sepconv.engines.torch.convolution import CODES
from sepconv.engines.torch.transforms import leading
from sepconv.program.embedded import KEY_BYTES, Embedded, no_gradient, open_program, shapes_at
from sepconv.program.program import Program

__all__ = ["file_bytes", "is_eager", "run_program"]

_NAMES = {code: dtype for dtype, code in CODES.items()}

#: How many programs of graphs without a module are kept; each holds the weights of a network.
_MOST_KEPT = 16

_library = torch.library.Library("sepconv", "FRAGMENT")
# `sizes` are those of all results, one after the other, and `ranks` how many each has; `dtypes` as
# in CODES. They say to a compiler what the file would.
_library.define(
    "program(Tensor[] inputs, Tensor file, SymInt[] sizes, int[] ranks, int[] dtypes) -> Tensor[]",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_operation = torch.ops.sepconv.program.default


def is_eager(tensors: Sequence[Tensor]) -> bool:
    """Whether neither a compiler nor one of PyTorch's transforms looks on."""
    return (
        not torch.compiler.is_compiling()
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and all(type(x) in (Tensor, torch.nn.Parameter) for x in tensors)
    )


def file_bytes(array: Tensor) -> np.ndarray:
    """See `sepconv.engines.contract`."""
    return array.detach().cpu().contiguous().numpy()


def run_program(embedded: Embedded, file: Tensor | None, inputs: Sequence[Any]) -> list[Tensor]:
    """See `sepconv.engines.contract`."""
    if torch.compiler.is_compiling() and file is not None:
        return _by_operation(embedded, file, list(inputs))
    tensors = [x if isinstance(x, Tensor) else torch.as_tensor(x) for x in inputs]
    if file is not None and not is_eager(tensors):
        return _by_operation(embedded, file, tensors)
    return _at_once(embedded, file, tensors)


def _call(embedded: Embedded, file: Tensor | None, tensors: list[Tensor]) -> list[Tensor]:
    for x in tensors:
        if x.requires_grad and torch.is_grad_enabled():
            raise no_gradient(embedded.name)
        _check_device(x, embedded.name)
    key = None
    if file is not None:
        key = file[:KEY_BYTES].numpy().tobytes() if file.is_cpu else None
        _keep(file, embedded.program(key))
    return [torch.from_numpy(y) for y in embedded.run([_array(x) for x in tensors], key)]


_at_once: Callable[..., list[Tensor]] = torch.compiler.disable(_call)


def _check_device(x: Tensor, name: str) -> None:
    if not x.is_cpu:
        raise ValueError(
            f"{name} computes on the CPU. Move its inputs there, as by x.cpu(). "
            f"Received: a tensor on {x.device}"
        )


def _array(x: Tensor) -> np.ndarray:
    """A tensor's memory as a NumPy array; NumPy has no bfloat16, which becomes float32."""
    x = x.detach().resolve_neg().resolve_conj()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def _by_operation(embedded: Embedded, file: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """The results by the operation, whose shapes follow from the batch alone."""
    rule = embedded.usual
    if rule is None:
        rule = embedded.rule([x.shape[1:] for x in tensors])
    sizes = [size for shape in shapes_at(rule, tensors[0].shape[0]) for size in shape]
    ranks = [len(slopes) for slopes in rule.per_image]
    return _operation(tensors, file, sizes, ranks, embedded.codes)


# --- on the CPU ------------------------------------------------------------------------------

_Key = tuple[int, int, bytes]
_known: weakref.WeakValueDictionary[_Key, Program] = weakref.WeakValueDictionary()
_kept: OrderedDict[_Key, Program] = OrderedDict()
_lock = threading.Lock()


def _key_of(file: Tensor) -> _Key:
    # Another tensor may have the address of one that is gone, and begin alike: cut short, for one.
    return file.data_ptr(), file.numel(), file[:KEY_BYTES].numpy().tobytes()


def _keep(file: Tensor, program: Program) -> None:
    """Lets graphs of a module use its program."""
    key = _key_of(file)
    if _known.get(key) is not program:
        _known[key] = program


def _program_of(file: Tensor) -> Program:
    """The program of a file, opened once."""
    key = _key_of(file)
    program = _known.get(key)
    if program is not None:
        return program
    with _lock:
        program = _kept.pop(key, None)
        if program is None:
            program = open_program(file_bytes(file), "The program of this graph")
        _kept[key] = program
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return program


def _parts(sizes: Sequence[Any], ranks: Sequence[int]) -> list[tuple[Any, ...]]:
    """The shapes of all results."""
    found, start = [], 0
    for rank in ranks:
        found.append(tuple(sizes[start : start + rank]))
        start += rank
    return found


def _cpu(
    inputs: list[Tensor], file: Tensor, sizes: list[int], ranks: list[int], dtypes: list[int]
) -> list[Tensor]:
    if not file.is_cpu or file.dtype != torch.uint8 or file.dim() != 1:
        raise ValueError(
            "The file of a program must be a tensor of bytes on the CPU. "
            f"Received: one of {file.dtype} on {file.device}"
        )
    found = _program_of(file)(*map(_array, inputs))
    results = [torch.from_numpy(y) for y in (found if isinstance(found, tuple) else (found,))]
    expected = _parts(sizes, ranks)
    if [tuple(y.shape) for y in results] != expected or [y.dtype for y in results] != [
        _NAMES[code] for code in dtypes
    ]:
        raise ValueError(
            f"The graph was made for a program that gives {expected}. "
            f"Received: one that gives {[tuple(y.shape) for y in results]}"
        )
    return results


def _fake(
    inputs: list[Tensor], file: Tensor, sizes: list[Any], ranks: list[int], dtypes: list[int]
) -> list[Tensor]:
    shapes = _parts(sizes, ranks)
    return [
        inputs[0].new_empty(shape, dtype=_NAMES[code])
        for shape, code in zip(shapes, dtypes, strict=True)
    ]


def _autograd(inputs: list[Tensor], *rest: Any) -> list[Tensor]:
    dual = forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(x).tangent is not None for x in inputs
    )
    if dual or (torch.is_grad_enabled() and any(x.requires_grad for x in inputs)):
        raise no_gradient("A program")
    with torch._C._AutoDispatchBelowAutograd():
        return _operation(inputs, *rest)


def _map(
    info: Any,
    in_dims: Any,
    inputs: list[Tensor],
    file: Tensor,
    sizes: list[int],
    ranks: list[int],
    dtypes: list[int],
) -> tuple[list[Tensor], list[int]]:
    """What ``torch.vmap`` makes of it: the mapped inputs one after the other."""
    count = info.batch_size
    mapped = [leading(x, axis, count) for x, axis in zip(inputs, in_dims[0], strict=True)]
    each = [_operation([x[i] for x in mapped], file, sizes, ranks, dtypes) for i in range(count)]
    return [torch.stack(ys) for ys in zip(*each, strict=True)], [0] * len(ranks)


_library.impl("program", _cpu, "CPU")
_library.impl("program", _autograd, "Autograd")
torch.library.register_fake("sepconv::program", _fake, lib=_library)
torch.library.register_vmap("sepconv::program", _map, lib=_library)
