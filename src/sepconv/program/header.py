"""The header of a program's file: a `Network` without its tensors' elements, as strict JSON.

``docs/program-file.md`` describes it. What JSON can get wrong is checked here, what the network's
parts may be in `sepconv.program.validate`.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sepconv.program.dtypes import TENSORS, tensor_dtype
from sepconv.program.network import MOST_AXES, OPERATIONS, Input, Network, Step
from sepconv.program.validate import MOST_TENSORS, check_name

__all__ = [
    "ALIGNMENT",
    "MOST_BYTES",
    "Header",
    "Place",
    "check_notes",
    "decode",
    "encode",
    "places",
]

#: Every tensor begins at a multiple of this many bytes.
ALIGNMENT = 64

#: The most bytes of a header.
MOST_BYTES = 8 << 20

#: The most notes, and the most characters of one.
_MOST_NOTES = 256
_MOST_NOTE = 1 << 20

#: How deeply lists and objects may lie in each other; a header needs 5.
_MOST_DEPTH = 8

_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NESTING = np.zeros(256, np.int32)
_NESTING[list(b"[{")] = 1
_NESTING[list(b"]}")] = -1


class Place(NamedTuple):
    """Where a tensor lies in a file.

    Attributes:
        dtype: its name.
        shape: its sizes.
        offset: of its first byte, from where the tensors begin.
        size: in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class Header(NamedTuple):
    """What a header says.

    Attributes:
        network: without tensors, not validated yet.
        places: those of its tensors.
        notes: what else was written down.
    """

    network: Network
    places: list[Place]
    notes: dict[str, str]


def places(tensors: Sequence[np.ndarray]) -> list[Place]:
    """Where the tensors of a network go: one after the other, each at the next multiple of 64.

    Example:
        >>> [place.offset for place in places([np.zeros(3, "float32"), np.zeros(17, "float32")])]
        [0, 64]
    """
    found, end = [], 0
    for tensor in tensors:
        offset = _aligned(end)
        found.append(Place(tensor_dtype(tensor), tensor.shape, offset, tensor.nbytes))
        end = offset + tensor.nbytes
    return found


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def check_notes(notes: Any) -> None:
    """Raises unless notes are a few strings by name.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(notes, Mapping) or len(notes) > _MOST_NOTES:
        raise ValueError(
            f"notes must be a mapping of at most {_MOST_NOTES} names to strings. Received: "
            f"{reprlib.repr(notes)}"
        )
    for name, text in notes.items():
        check_name("the name of a note", name)
        if type(text) is not str or len(text) > _MOST_NOTE or not _is_unicode(text):
            raise ValueError(
                f"notes[{name!r}] must be a string of at most {_MOST_NOTE} characters. Received: "
                f"{reprlib.repr(text)}"
            )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


# ---- writing


def encode(network: Network, notes: Mapping[str, str]) -> bytes:
    """The header of a valid network.

    Raises:
        ValueError: it is too long.
    """
    header = {
        "dtype": network.dtype,
        "inputs": [{"name": each.name, "shape": each.shape} for each in network.inputs],
        "steps": [_step_as_json(step) for step in network.steps],
        "outputs": [
            {"name": name, "value": value}
            for name, value in zip(network.output_names, network.outputs, strict=True)
        ],
        "tensors": [place._asdict() for place in places(network.tensors)],
        "notes": dict(notes),
    }
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    raw = text.encode()
    if len(raw) > MOST_BYTES:
        raise ValueError(
            f"the network and its notes take {len(raw)} bytes without the tensors, more than the "
            f"{MOST_BYTES} that a file may have of them"
        )
    return raw


def _step_as_json(step: Step) -> dict[str, Any]:
    attributes = dict(step.attributes)
    for field in OPERATIONS[step.operation].fields:
        if field.kind == "float":
            value = float(attributes[field.name])
            # JSON has no infinity.
            infinite = "Infinity" if value > 0 else "-Infinity"
            attributes[field.name] = infinite if math.isinf(value) else value
    return {
        "operation": step.operation,
        "name": step.name,
        "inputs": step.inputs,
        "attributes": attributes,
        "weights": dict(step.weights),
    }


# ---- reading


def decode(raw: bytes, tensor_bytes: int) -> Header:
    """What a header says, with all of JSON checked, and the tensors' places.

    Args:
        raw: the header.
        tensor_bytes: how many bytes the file has from where its tensors begin.

    Raises:
        ValueError: it is not the JSON that it must be, or the tensors are not where they must be.
    """
    header = _object("the header", _parse(raw), _KEYS)
    notes = header["notes"]
    check_notes(notes)
    inputs = [
        _object(f"inputs[{i}]", each, ("name", "shape"))
        for i, each in enumerate(_list("inputs", header["inputs"]))
    ]
    outputs = [
        _object(f"outputs[{i}]", each, ("name", "value"))
        for i, each in enumerate(_list("outputs", header["outputs"]))
    ]
    steps = [_step(f"steps[{i}]", each) for i, each in enumerate(_list("steps", header["steps"]))]
    network = Network(
        header["dtype"],
        tuple(Input(each["name"], _fixed(each["shape"])) for each in inputs),
        tuple(steps),
        tuple(each["value"] for each in outputs),
        tuple(each["name"] for each in outputs),
        (),
    )
    return Header(network, _places(header["tensors"], tensor_bytes), notes)


_KEYS = ("dtype", "inputs", "steps", "outputs", "tensors", "notes")
_STEP_KEYS = ("operation", "name", "inputs", "attributes", "weights")


def _parse(raw: bytes) -> Any:
    """The JSON, without what two readers could take for different things."""
    nesting = _NESTING[np.frombuffer(_STRING.sub(b"", raw), np.uint8)]
    if nesting.cumsum().max(initial=0) > _MOST_DEPTH:
        raise ValueError(f"the header has lists more than {_MOST_DEPTH} deep")
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the header is not JSON in UTF-8: {error}") from error


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the header has {reprlib.repr(twice)} twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > 20:  # -(2 ** 63) has 20
        raise ValueError(f"the header has an integer of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the header has a number that is too large: {text[:40]}")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"the header has {text}, which is not JSON")


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list. Received: {reprlib.repr(value)}")
    return value


def _object(where: str, value: Any, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != set(keys):
        received = reprlib.repr(list(value) if isinstance(value, dict) else value)
        raise ValueError(f"{where} must be an object of {', '.join(keys)}. Received: {received}")
    return value


def _fixed(value: Any) -> Any:
    """A list as a tuple; anything else as it is, for `validate` to refuse."""
    return tuple(value) if isinstance(value, list) else value


def _step(where: str, value: Any) -> Step:
    step = _object(where, value, _STEP_KEYS)
    attributes = step["attributes"]
    if isinstance(attributes, dict):
        attributes = {name: _fixed(each) for name, each in attributes.items()}
        operation = step["operation"]
        fields = OPERATIONS[operation].fields if _is_known(operation) else ()
        for field in fields:
            if field.kind == "float" and field.name in attributes:
                attributes[field.name] = _as_float(attributes[field.name])
    return Step(
        step["operation"], step["name"], _fixed(step["inputs"]), attributes, step["weights"]
    )


def _is_known(operation: Any) -> bool:
    return type(operation) is str and operation in OPERATIONS


def _as_float(value: Any) -> Any:
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return _INFINITE.get(value, value) if type(value) is str else value


def _places(value: Any, tensor_bytes: int) -> list[Place]:
    """The tensors' places, which leave no room between them but what aligns them."""
    tensors = _list("tensors", value)
    if len(tensors) > MOST_TENSORS:
        raise ValueError(f"tensors must be at most {MOST_TENSORS}. Received: {len(tensors)}")
    found, end = [], 0
    for i, each in enumerate(tensors):
        where = f"tensors[{i}]"
        given = _object(where, each, Place._fields)
        dtype = given["dtype"]
        if type(dtype) is not str or dtype not in TENSORS:
            raise ValueError(
                f"{where}: dtype must be one of {', '.join(TENSORS)}. Received: "
                f"{reprlib.repr(dtype)}"
            )
        shape = _list(f"{where}: shape", given["shape"])
        if len(shape) > MOST_AXES or not all(type(n) is int and 0 <= n < 2**53 for n in shape):
            raise ValueError(
                f"{where}: shape must be at most {MOST_AXES} sizes. Received: {reprlib.repr(shape)}"
            )
        size = math.prod(shape) * TENSORS[dtype].itemsize
        place = Place(dtype, tuple(shape), _aligned(end), size)
        for name in ("offset", "size"):
            wanted = getattr(place, name)
            if type(given[name]) is not int or given[name] != wanted:
                raise ValueError(
                    f"{where}: {name} must be {wanted}. Received: {reprlib.repr(given[name])}"
                )
        end = place.offset + place.size
        if end > tensor_bytes:
            raise ValueError(
                f"{where} ends {end} bytes after the first tensor's begin, but only {tensor_bytes} "
                "follow"
            )
        # NumPy has no array whose sizes, without those that are 0, are beyond memory.
        if math.prod(n for n in shape if n) >= 2**53:
            raise ValueError(f"{where}: shape is too large. Received: {shape}")
        found.append(place)
    if end != tensor_bytes:
        raise ValueError(f"{tensor_bytes - end} bytes follow the last tensor")
    return found
