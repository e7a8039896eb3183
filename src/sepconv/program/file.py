"""A program's file: written whole or not at all, and read with nothing in it taken on trust.

``docs/program-file.md`` describes every byte. There is no pickle and no code in it.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from sepconv.program import header
from sepconv.program.dtypes import TENSORS, tensor_dtype
from sepconv.program.network import Network
from sepconv.program.validate import validate

__all__ = ["MAGIC", "VERSION", "Contents", "decode", "encode", "identity", "read", "write"]

#: The first bytes. Like PNG's they show a transfer that took the file for text.
MAGIC = b"\x89SEPC\r\n\x1a"

#: The newest version of the format. Files of this version and of all before it are read.
VERSION = 3

#: The kinds of steps of version 1, whose values and tensors are all of the network's dtype.
_FIRST_OPERATIONS = frozenset(
    (
        "convolution",
        "dense",
        "scale",
        "unary",
        "binary",
        "pool",
        "reduce",
        "concatenate",
        "pad",
        "slice",
        "transpose",
        "reshape",
        "resize",
        "layer_normalization",
        "softmax",
        "constant",
    )
)

#: Those that version 3 brought.
_THIRD_OPERATIONS = frozenset(("dequantized_convolution", "dequantized_dense"))

#: Magic, version, checksum, bytes of the header, bytes of the file.
_PRELUDE = struct.Struct("<8sIIQQ")


class Contents(NamedTuple):
    """What is in a program's file.

    Attributes:
        network: the network, valid; its tensors are read-only.
        notes: what was written down beside it.
    """

    network: Network
    notes: dict[str, str]


def write(
    path: str | os.PathLike[str], network: Network, notes: Mapping[str, str] | None = None
) -> None:
    """Writes a network to a file, which appears whole or not at all, and replaces one of its name.

    The file is of the oldest version that has all that is in the network, for older readers.

    Args:
        path: where; by custom it ends in ``.sepconv``.
        network: what to write.
        notes: strings by name, for people and tools; nothing in them changes what the network
            computes.

    Raises:
        ValueError: the network or the notes are not valid, or the path is of something that is no
            file.
        OSError: it cannot be written.

    Example:
        >>> import tempfile
        >>> from sepconv.program.network import Input, Step
        >>> step = Step("softmax", "classes", (0,), {"axis": 1, "logarithm": False})
        >>> network = Network("float32", (Input("x", (None, 4)),), (step,), (1,), ("y",), ())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(f"{folder}/classes.sepconv", network, {"model": "classes"})
        ...     read(f"{folder}/classes.sepconv").notes
        {'model': 'classes'}
    """
    chunks = _whole(network, notes)
    with _replacing(Path(path)) as file:
        for chunk in chunks:
            file.write(chunk)


def encode(network: Network, notes: Mapping[str, str] | None = None) -> bytes:
    """The bytes of the file that `write` writes, for those who keep them elsewhere.

    Raises:
        ValueError: the network or the notes are not valid.

    Example:
        >>> from sepconv.program.network import Input, Step
        >>> step = Step("softmax", "classes", (0,), {"axis": 1, "logarithm": False})
        >>> network = Network("float32", (Input("x", (None, 4)),), (step,), (1,), ("y",), ())
        >>> decode(encode(network)).network.output_names
        ('y',)
    """
    return b"".join(_whole(network, notes))


def _whole(network: Network, notes: Mapping[str, str] | None) -> list[bytes | memoryview]:
    """All of a file, in order."""
    validate(network)
    header.check_notes({} if notes is None else notes)
    chunks = _chunks(network, {} if notes is None else notes)
    size = _PRELUDE.size + sum(len(chunk) for chunk in chunks)
    header_bytes = len(chunks[0])
    version = _version_of(network)
    checksum = zlib.crc32(_PRELUDE.pack(MAGIC, version, 0, header_bytes, size))
    for chunk in chunks:
        checksum = zlib.crc32(chunk, checksum)
    return [_PRELUDE.pack(MAGIC, version, checksum, header_bytes, size), *chunks]


def _version_of(network: Network) -> int:
    """The oldest version that has all that is in a network."""
    operations = {step.operation for step in network.steps}
    if operations & _THIRD_OPERATIONS:
        return 3
    plain = {tensor_dtype(t) for t in network.tensors} <= {network.dtype}
    return 1 if plain and operations <= _FIRST_OPERATIONS else 2


def _chunks(network: Network, notes: Mapping[str, str]) -> list[bytes | memoryview]:
    """What follows the prelude, in order: the header first."""
    text = header.encode(network, notes)
    chunks: list[bytes | memoryview] = [text, bytes(_padding(_PRELUDE.size + len(text)))]
    end = 0
    for tensor, place in zip(network.tensors, header.places(network.tensors), strict=True):
        chunks.append(bytes(place.offset - end))
        little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        chunks.append(little.reshape(-1).view(np.uint8).data)
        end = place.offset + place.size
    return chunks


def _padding(size: int) -> int:
    """How many bytes are missing to a multiple of the alignment."""
    return -size % header.ALIGNMENT


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write to, which takes the name `path` when the block ends without an error.

    It is in a temporary folder beside it, so that the last step is a rename on one file system.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is there and is no file: name another one to write to")
    folder = path.absolute().parent
    with tempfile.TemporaryDirectory(prefix=".sepconv-", dir=folder) as draft:
        written = Path(draft) / path.name
        with open(written, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the name without the bytes
        os.replace(written, path)


def read(path: str | os.PathLike[str]) -> Contents:
    """Reads a network from a file, and checks all of it.

    Args:
        path: a file that `write` wrote, or anything else, which is refused.

    Returns:
        The network and the notes. Nothing of them is in the file any longer, which may be changed
        or removed.

    Raises:
        ValueError: the file is not a program, is damaged, or is of a newer version; the message
            names the file and says what to do.
        OSError: it cannot be opened or read.
    """
    name = os.fsdecode(path)
    with open(path, "rb", buffering=0) as file:
        return _contents(file, os.fstat(file.fileno()).st_size, name)


def decode(data: bytes | np.ndarray, name: str = "the program") -> Contents:
    """Reads a network from the bytes of a file, and checks all of them, as `read` does.

    Args:
        data: what `encode` gave, or anything else, which is refused; bytes, or an array of them.
        name: what errors call it.

    Raises:
        ValueError: the bytes are not those of a program, are damaged, or of a newer version.
    """
    raw = data if isinstance(data, bytes) else np.ascontiguousarray(data, np.uint8).data
    return _contents(BytesIO(raw), len(raw), name)


def identity(data: bytes | np.ndarray) -> bytes:
    """The first bytes of a file, with its size and the checksum of the whole."""
    return bytes(data[: _PRELUDE.size])


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def readinto(self, buffer: memoryview, /) -> int | None: ...


def _contents(file: _Reader, size: int, name: str) -> Contents:
    try:
        return _parse(_bytes(file, size))
    except (MemoryError, RecursionError) as error:
        raise ValueError(f"{name}: there is not enough memory to read it") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _bytes(file: _Reader, size: int) -> np.ndarray:
    """All of a file, at an address that is aligned, after a look at its first bytes."""
    prelude = file.read(_PRELUDE.size)
    if prelude[:8] != MAGIC:
        raise ValueError(
            "it is not a program of sepconv's, or was changed by a transfer as text; "
            "`sepconv compile` makes one of a Keras model"
        )
    if len(prelude) < _PRELUDE.size:
        raise ValueError(_cut(len(prelude)))
    _, version, _, header_bytes, stated = _PRELUDE.unpack(prelude)
    if not 1 <= version <= VERSION:
        raise ValueError(
            f"it is a program of version {version}, and this sepconv reads versions up to "
            f"{VERSION}. Install a newer sepconv, or compile the model again with this one"
        )
    if size < stated:
        raise ValueError(_cut(size, stated))
    if size > stated:
        raise ValueError(f"{size - stated} bytes follow the end of the program; {_ANEW}")
    if header_bytes > min(header.MOST_BYTES, size - _PRELUDE.size):
        raise ValueError(f"its header cannot have {header_bytes} bytes; {_ANEW}")
    room = np.empty(size + header.ALIGNMENT, np.uint8)
    buffer = room[_padding(room.ctypes.data) :][:size]
    buffer[: len(prelude)] = np.frombuffer(prelude, np.uint8)
    done = len(prelude)
    while done < size:
        # Of one call the system may read a part.
        count = file.readinto(buffer[done:].data)
        if not count:
            raise ValueError(_cut(done, size))
        done += count
    return buffer


_ANEW = "copy the file again, or compile the model again"


def _cut(size: int, stated: int | None = None) -> str:
    of = "" if stated is None else f" of {stated}"
    return f"it is cut short, after {size}{of} bytes; {_ANEW}"


def _parse(buffer: np.ndarray) -> Contents:
    """The contents of a whole file; the arrays are views of it."""
    _, version, checksum, header_bytes, _ = _PRELUDE.unpack(buffer[: _PRELUDE.size].tobytes())
    buffer[12:16] = 0  # the checksum is that of a file without one
    if zlib.crc32(buffer.data) != checksum:
        raise ValueError(f"it is damaged: its checksum is not the one written in it; {_ANEW}")
    end = _PRELUDE.size + header_bytes
    begin = end + _padding(end)
    if begin > len(buffer):
        raise ValueError(_cut(len(buffer), begin))
    data = buffer[begin:]
    buffer.flags.writeable = data.flags.writeable = False
    found = header.decode(buffer[_PRELUDE.size : end].tobytes(), len(data))
    tensors, last = [], 0
    _require_zeros(buffer[end:begin])
    for place in found.places:
        _require_zeros(data[last : place.offset])
        last = place.offset + place.size
        dtype = TENSORS[place.dtype]
        little = data[place.offset : last].view(dtype.newbyteorder("<"))
        # On a machine of the other order this is a copy.
        tensors.append(little.reshape(place.shape).astype(dtype, copy=False))
    network = found.network._replace(tensors=tuple(tensors))
    validate(network)
    if _version_of(network) > version:
        raise ValueError(
            f"it says that it is of version {version}, and has steps or dtypes of a later one"
        )
    return Contents(network, found.notes)


def _require_zeros(padding: np.ndarray) -> None:
    if padding.any():
        raise ValueError("it has something in the bytes that only align a tensor")
