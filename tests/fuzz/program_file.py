"""A fuzzer of programs' files, for a time: damaged and hostile files are read, and run if accepted.

python tests/fuzz/program_file.py --seconds 60

A file must be read or refused with a ValueError; what is accepted must be written again and read as
the same, and must run, or be refused with a ValueError or for want of memory. Then it gives what
the reference gives, in float64 within rounding and in int8 to the bit, and the notes change no bit
of it. Each case has a number, which `--seed` repeats; a crash leaves its file.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import json
import math
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from helpers import programs

import sepconv
from sepconv.program import file, reference
from sepconv.program.network import OPERATIONS, QUANTIZED_OPERATIONS, Network
from sepconv.program.program import Program, Tuning

LIMIT = 4 << 30  # bytes of memory, beyond which a case gets none
MODEST = 1 << 28  # bytes of all values, beyond which a case is left out under a sanitizer
PATIENCE = 60  # seconds for one case
FEW = 10**7  # bytes of all values, up to which float64 is held against the reference
LARGEST_INPUT = 1 << 20  # elements

Random = np.random.Generator

HOSTILE = (
    *(None, True, False, 0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 255, 256, -1, -2, 0.0, -0.0, 0.5, 1.0),
    *(2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30),
    *(1e-310, 1e300, -1e300, "Infinity", "-Infinity", "NaN", "", "float32", "float64", "\x1b[2J"),
    *("\ud800", "x" * 2000, [], {}, [[]], [0], [1, 1], [None], [-1], {"a": 1}, [0] * 300),
)


# ---- the tree of a header


def nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in it, as a list or an object and the index or the name there."""
    found = []
    places = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in places:
        found.append((tree, key))
        if isinstance(value, dict | list):
            found += nodes(value)
    return found


def pick(draw: Random, values: Any) -> Any:
    """One of them."""
    return values[int(draw.integers(len(values)))]


def put_hostile(draw: Random, header: Any) -> None:
    """Puts something that is likely wrong anywhere."""
    where, key = pick(draw, nodes(header))
    where[key] = copy.deepcopy(pick(draw, HOSTILE))


def put_another(draw: Random, header: Any) -> None:
    """Copies one place's value to another."""
    where, key = pick(draw, nodes(header))
    source, name = pick(draw, nodes(header))
    where[key] = copy.deepcopy(source[name])


def drop(draw: Random, header: Any) -> None:
    """Leaves one place out."""
    where, key = pick(draw, nodes(header))
    del where[key]


def double(draw: Random, header: Any) -> None:
    """Has an element of a list twice, or adds a name to an object."""
    where, key = pick(draw, nodes(header))
    if isinstance(where, list):
        where.insert(key, copy.deepcopy(where[key]))
    else:
        where[pick(draw, ("", "name", "axis", "a\n"))] = copy.deepcopy(where[key])


def change_inputs(draw: Random, header: Any) -> None:
    """Gives a step other values; most of them are there."""
    step = last_step(header)
    step["inputs"] = [int(draw.integers(-1, len(header["steps"]) + 2)) for _ in step["inputs"]]
    if draw.random() < 0.2:
        step["inputs"].append(0)


def change_weights(draw: Random, header: Any) -> None:
    """Gives a step other tensors, or leaves one out."""
    step = last_step(header)
    parts = OPERATIONS[step["operation"]].weights
    if parts:
        step["weights"][pick(draw, parts)] = int(draw.integers(-1, len(header["tensors"]) + 1))
    if step["weights"] and draw.random() < 0.3:
        del step["weights"][pick(draw, list(step["weights"]))]


def change_attributes(draw: Random, header: Any) -> None:
    """Gives a step attributes of the right types, most of them in range."""
    step = last_step(header)
    for field in OPERATIONS[step["operation"]].fields:
        if draw.random() < 0.5:
            step["attributes"][field.name] = any_attribute(draw, field)


def any_attribute(draw: Random, field: Any) -> Any:
    """An attribute of a kind."""
    if field.kind == "flag":
        return bool(draw.integers(2))
    if field.kind == "choice":
        return pick(draw, field.choices)
    if field.kind == "float":
        return pick(draw, (0.0, 1.0, -1.0, 6, 1e-6, 1e30, -1e300, "Infinity", "-Infinity"))
    if field.kind == "int":
        return any_integer(draw)
    count = field.length or int(draw.integers(0, 9))
    if field.name == "spec":
        count = 4
        tail = pick(draw, ([1, 0, 0, 0, 0], [0, *[int(draw.integers(0, 4)) for _ in range(4)]]))
        return [*(any_integer(draw) for _ in range(4)), *tail, int(draw.integers(2))]
    if field.name == "permutation":
        return [int(axis) for axis in draw.permutation(count)]
    values: list[Any] = [any_integer(draw) for _ in range(count)]
    return [None if field.kind == "bounds" and draw.random() < 0.5 else v for v in values]


def any_integer(draw: Random) -> int:
    """A small one, or seldom one that is not."""
    if draw.random() < 0.03:
        return pick(draw, (-1, 1000, 2**31 - 1, 2**31, 2**40, 2**53 - 1))
    return int(draw.integers(0, 5))


def change_operation(draw: Random, header: Any) -> None:
    """Makes a step one of another kind, with attributes and tensors of that kind."""
    step = last_step(header)
    step["operation"] = name = pick(draw, list(OPERATIONS))
    operation = OPERATIONS[name]
    step["attributes"] = {field.name: any_attribute(draw, field) for field in operation.fields}
    count = operation.inputs[0] + int(draw.integers(2))
    step["inputs"] = [int(draw.integers(len(header["steps"]))) for _ in range(count)]
    step["weights"] = {
        part: int(draw.integers(len(header["tensors"])))
        for part in operation.weights
        if part in operation.required or draw.random() < 0.5
    }


def change_tensor(draw: Random, header: Any) -> None:
    """Reads a tensor's elements in another shape."""
    shape = pick(draw, header["tensors"])["shape"]
    kind = draw.integers(3)
    if kind == 0:
        shape[:] = [shape[i] for i in draw.permutation(len(shape))]
    elif kind == 1:
        shape[:] = [int(np.prod(shape, dtype=int))]
    else:
        shape.insert(int(draw.integers(len(shape) + 1)), 1)


def change_shape(draw: Random, header: Any) -> None:
    """Gives an input another shape."""
    shape = header["inputs"][0]["shape"]
    if shape and draw.random() < 0.7:
        shape[int(draw.integers(len(shape)))] = pick(draw, (None, 0, 1, 2, 3, 8, 9, 64, 2**40))
    else:
        shape[:] = [pick(draw, (None, 0, 1, 2, 3, 5)) for _ in range(int(draw.integers(1, 9)))]


def change_tuning(draw: Random, header: Any) -> None:
    """Writes down how the program is to run, or nonsense."""
    names = Tuning._fields
    values = [pick(draw, (-1, 0, 1, 2, 3, 100, 4096, 1 << 20, 1 << 40, 1.5, True)) for _ in names]
    tuning = pick(
        draw, (dict(zip(names, values, strict=True)), values, values[0], {"most_links": 1})
    )
    header["notes"]["tuning"] = pick(draw, (json.dumps(tuning), json.dumps(tuning), "[" * 10**5))


def last_step(header: Any) -> Any:
    """The step that the header was cut after, so that what it takes is right."""
    return header["steps"][-1]


EDITS = (put_hostile, put_another, drop, double, change_inputs, change_weights)
PLAUSIBLE = (change_attributes, change_inputs, change_weights, change_operation, change_tensor)


# ---- files


def flip(draw: Random, raw: bytes) -> bytes:
    """A few bits of a file turned over."""
    data = bytearray(raw)
    for _ in range(int(draw.integers(1, 9))):
        data[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
    return bytes(data)


def cut(draw: Random, raw: bytes) -> bytes:
    """A file cut short, lengthened, or with a piece of it elsewhere."""
    at, other = (int(draw.integers(len(raw))) for _ in range(2))
    return pick(draw, (raw[:at], raw + raw[at:], raw[:at] + raw[other:], raw[at:] + raw[:at]))


def flip_header(draw: Random, raw: bytes) -> bytes:
    """A few bits or characters of the header changed, with a right checksum."""
    text, tensors = programs.split(raw)
    if draw.random() < 0.5:
        return programs.join(flip(draw, text), tensors)
    at = int(draw.integers(len(text)))
    new = pick(draw, (b"[", b"]", b'"', b"{", b"}", b",", b"9", b"\\", b"e9", b"\xff", b"[" * 2000))
    return programs.join(text[:at] + new + text[at + int(draw.integers(2)) :], tensors)


def edit(draw: Random, raw: bytes) -> bytes:
    """A header with something hostile in it, with a right checksum."""
    text, tensors = programs.split(raw)
    header = json.loads(text)
    for _ in range(int(draw.integers(1, 4))):
        if header and header.get("steps"):
            attempt(pick(draw, EDITS), draw, header)
    return programs.join(json.dumps(header).encode(), tensors)


def vary(draw: Random, raw: bytes) -> bytes:
    """A network cut after a step, which is then changed for one that may be right, too."""
    text, tensors = programs.split(raw)
    header = json.loads(text)
    count = int(draw.integers(1, len(header["steps"]) + 1))
    del header["steps"][count:]
    header["outputs"] = [{"name": "y", "value": count}]
    for _ in range(int(draw.integers(1, 3))):
        attempt(pick(draw, PLAUSIBLE), draw, header)
    if draw.random() < 0.2:
        attempt(change_shape, draw, header)
    if draw.random() < 0.2:
        attempt(change_tuning, draw, header)
    return programs.join(json.dumps(header).encode(), tensors)


def attempt(change: Callable[[Random, Any], None], draw: Random, header: Any) -> None:
    """Makes a change, unless one before took away what it needs."""
    try:
        change(draw, header)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return


STARTS: dict[str, Callable[[], Network]] = {
    "every_operation_float32": programs.every_operation,
    "every_operation_float64": lambda: programs.every_operation("float64"),
    "blocks_float32": programs.blocks,
    "blocks_float64": lambda: programs.blocks("float64"),
    "bfloat16": programs.halves,
    "int8": programs.quantized,
}
KINDS = {"flip": flip, "cut": cut, "flip_header": flip_header, "edit": edit, "vary": vary}
WEIGHTS = (0.1, 0.1, 0.15, 0.25, 0.4)


# ---- running


def require(condition: Any, message: str) -> None:
    """Raises where a promise is broken."""
    if not condition:
        raise AssertionError(message)


def run(path: Path, network: Network, draw: Random, modest: bool) -> bool:
    """Runs a file's network on small inputs; whether it was accepted."""
    try:
        program = sepconv.load(path)
        shapes = [
            [int(draw.integers(0, 10)) if size is None else size for size in each.shape]
            for each in network.inputs
        ]
        if any(np.prod(shape, dtype=float) > LARGEST_INPUT for shape in shapes):
            return False
        bytes_used = program.memory(*shapes).naive
        if modest and bytes_used > MODEST:
            return False
        arrays = [draw.standard_normal(shape).astype(network.dtype) for shape in shapes]
        results = as_tuple(program(*arrays))
        profiled = program.profile(*arrays)
        untuned = as_tuple(Program(network)(*arrays))
    except (ValueError, TypeError, MemoryError) as error:
        # Without a word nobody knows what was too large.
        require(str(error), f"{type(error).__name__} without a message")
        return False
    require([r.shape for r in results] == list(program.output_shapes(*shapes)), "shapes")
    require(len(profiled) == len(network.steps), "profile")
    require([r.tobytes() for r in results] == [r.tobytes() for r in untuned], "the notes count")
    exact = all(step.operation in QUANTIZED_OPERATIONS for step in network.steps)
    if (exact or network.dtype == "float64") and bytes_used < FEW:
        try:
            with np.errstate(all="ignore"):
                expected = reference.run(network, *arrays)
        except MemoryError:  # it copies padding, which programs do not
            return True
        agree = np.array_equal if exact else close
        require(all(map(agree, results, expected)), "the reference gives something else")
    return True


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a result is the expected one, but for rounding."""
    largest = np.abs(expected, where=np.isfinite(expected), out=np.zeros_like(expected))
    bound = 1e-8 * max(1.0, largest.max(initial=0.0))
    return found.shape == expected.shape and np.allclose(
        found, expected, rtol=1e-6, atol=bound, equal_nan=True
    )


def as_tuple(results: Any) -> tuple[np.ndarray, ...]:
    """What a program gives, always as a tuple."""
    return results if isinstance(results, tuple) else (results,)


def one_case(number: int, folder: Path, options: argparse.Namespace) -> str:
    """A case, by its number; what came of it."""
    draw = np.random.default_rng(number)
    start = pick(draw, list(STARTS))
    begin = folder / f"{start}.sepconv"
    if not begin.exists():
        file.write(begin, STARTS[start](), {"model": start})
    name = str(draw.choice(list(KINDS), p=WEIGHTS))
    path = folder / "case.sepconv"
    path.write_bytes(KINDS[name](draw, begin.read_bytes()))
    (folder / "number").write_text(str(number))
    try:
        found = file.read(path)
    except ValueError as error:
        require(type(error) is ValueError and str(error).startswith(f"{path}: "), repr(error))
        return f"{name}: refused"
    file.write(folder / "again.sepconv", *found)
    again = file.read(folder / "again.sepconv")
    assert programs.same(again.network, found.network)
    assert again.notes == found.notes
    if options.read_only:
        return f"{name}: read"
    return f"{name}: {'run' if run(path, found.network, draw, options.sanitized) else 'read'}"


def fuzz(options: argparse.Namespace, first: int) -> Counter[str]:
    """Runs cases until the time is over; an error ends it and names the case."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        print(f"if it crashes: {folder} has the case's file and number", flush=True)
        outcomes: Counter[str] = Counter()
        end, number = time.monotonic() + options.seconds, first
        last = math.inf if options.count is None else first + options.count
        while time.monotonic() < end and number < last:
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            try:
                outcomes[one_case(number, folder, options)] += 1
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"program_file_{number}.sepconv"
                kept.write_bytes((folder / "case.sepconv").read_bytes())
                print(f"case {number}, kept in {kept}; again: --seed {number} --count 1")
                raise
            finally:
                faulthandler.cancel_dump_traceback_later()
            number += 1
    print(f"{number - first} cases, {first} to {number - 1}, no finding")
    for outcome, times in sorted(outcomes.items()):
        print(f"  {outcome:24}{times:8}")
    return outcomes


def main() -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="the first; by default the clock's")
    parser.add_argument("--count", type=int, default=None, help="how many cases at most")
    parser.add_argument("--read-only", action="store_true", help="do not run what is accepted")
    parser.add_argument(
        "--sanitized",
        action="store_true",
        help="for a library built with a sanitizer, which has to have all the memory it wants",
    )
    options = parser.parse_args()
    faulthandler.enable()
    if not options.sanitized:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    first = options.seed if options.seed is not None else int(time.time()) % 10**6 * 1000
    fuzz(options, first)
    return 0


if __name__ == "__main__":
    sys.exit(main())
