"""`sepconv quantize`: an int8 model or program of a Keras file, by examples or pictures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sepconv._commands import add_command, tell_step
from sepconv.models.command import DiffersError, add_conversion, carry_out

__all__ = ["SCALES", "add_parsers", "examples_of", "run"]

_ABOUT = """\
Makes an int8 network of a model, for inference: values become bytes, with scales that are chosen
on examples. OUT.keras is a Keras model; OUT.sepconv is a program, as `sepconv compile` writes,
which needs NumPy alone.

Reads IN, prints what became of every block and how far the outputs are from IN's, writes OUT, reads
OUT back and holds its predictions on the examples against those of the network that was made. OUT
appears only when all of that went well.

The examples are those of a .npy file, or all pictures in a folder and the folders in it, in the
order of their names. The middle square of each is brought to the model's size, and its numbers, 0
to 255, to what the model takes by --scale.
"""
_EXAMPLES = """\
examples:
  sepconv quantize mobilenet.keras mobilenet.sepconv --calibration pictures --scale=-1..1
  sepconv quantize net.keras small.keras --calibration examples.npy --tolerance 0.05
  sepconv quantize net.keras small.keras --calibration examples.npy --keep 'block_1*' --keep head
"""

#: What the numbers of pictures become: a factor and an offset, each a channel.
SCALES = {
    "0..255": ((1.0,), (0.0,)),
    "0..1": ((1 / 255,), (0.0,)),
    "-1..1": ((2 / 255,), (-1.0,)),
    # From 0 to 1, then by the means and deviations of ImageNet's pictures.
    "imagenet": (
        (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
        (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
    ),
}

#: Height and width of pictures where the model leaves them open.
_USUAL_SIZE = 224

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def add_parsers(commands: Any) -> None:
    """Adds the command to an `argparse` parser's subparsers."""
    parser = add_command(
        commands,
        "quantize",
        summary="make an int8 model or program, for inference",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        required=True,
        metavar="FILE.npy|FOLDER",
        help="examples like those that will be predicted, a hundred or more",
    )
    parser.add_argument(
        "--scale",
        choices=tuple(SCALES),
        default="0..255",
        help="what the numbers of pictures in a folder become (default: 0..255, as they are)",
    )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="NAME",
        help="a block that stays float, as the printed record has it, or a pattern; may be "
        "repeated",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="E",
        help="keep as many blocks in float as the outputs' relative error needs, such as 0.05",
    )
    add_conversion(
        parser,
        "OUT",
        what="a .keras or .sepconv file",
        force="OUT if it is there, even if it is IN",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carries out `sepconv quantize`; returns the exit code, as `sepconv.cli.main` does."""
    suffix = ".sepconv" if options.target.suffix == ".sepconv" else ".keras"
    return carry_out(options, suffix, _quantize)


def _quantize(options: argparse.Namespace) -> int:
    import keras

    import sepconv
    from sepconv.models import files
    from sepconv.program.program import as_list

    begun = time.perf_counter()
    tell_step(begun, f"Reading {options.source}")
    model = files.read(options.source)
    tell_step(begun, f"Reading {options.calibration}")
    examples = examples_of(options.calibration, model.input_shape, options.scale)
    try:
        tell_step(begun, "Quantising")
        made, record = sepconv.quantize(
            model, examples, keep=options.keep, tolerance=options.tolerance
        )
        program = sepconv.compile(made, verify=False)
    except (ValueError, TypeError) as error:
        raise files.FileError(f"{options.source}: {error}") from error
    print(record)
    batch = examples[: model.input_shape[0] or 8]
    expected = as_list(program(batch))
    with files.replacing(options.target, options.force) as draft:
        tell_step(begun, f"Writing {options.target}")
        (program if options.target.suffix == ".sepconv" else made).save(draft)
        tell_step(begun, "Reading it back and predicting on the same examples")
        if options.target.suffix == ".sepconv":
            found = as_list(sepconv.load(draft)(batch))
        else:
            read = files.read(draft)
            found = [np.asarray(y) for y in keras.tree.flatten(read.predict_on_batch(batch))]
        if any((a != b).any() for a, b in zip(expected, found, strict=True)):
            raise DiffersError(
                f"what was read back predicts something else; {options.target} was not written."
            )
    size, before = (path.stat().st_size for path in (options.target, options.source))
    print(
        f"Written: {options.target}, {size / 1e6:.1f} MB ({options.source}: {before / 1e6:.1f} MB)"
    )
    return 0


def examples_of(path: Path, shape: Any, scale: str) -> np.ndarray:
    """The examples in a file, or those made of the pictures in a folder.

    Args:
        path: of a .npy file or a folder.
        shape: of the model's input, with the batch first.
        scale: a name in `SCALES`.

    Raises:
        FileError: there are none, or they cannot be read.
    """
    from sepconv.models.files import FileError, read_array

    if path.is_dir():
        return _pictures(path, shape, scale)
    if not path.exists():
        raise FileError(f"--calibration: {path}: there is no such file or folder")
    return read_array(path, "--calibration")


def _pictures(folder: Path, shape: Any, scale: str) -> np.ndarray:
    from sepconv.models.files import FileError

    single = isinstance(shape, tuple) and len(shape) == 4 and None not in shape[3:]
    if not single or shape[3] not in (1, 3):
        raise FileError(
            f"--calibration: pictures are for models of one input, (batch, height, width, 1 or 3 "
            f"channels); this one's is {shape}. Give a .npy file instead"
        )
    height, width = (size or _USUAL_SIZE for size in shape[1:3])
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
    if not paths:
        raise FileError(f"--calibration: there are no pictures in {folder}, as {_PICTURES}")
    load = _loader(shape[3], height, width)
    factor, offset = (np.asarray(numbers, np.float32) for numbers in SCALES[scale])
    return np.stack([load(path) for path in paths]) * factor + offset


def _loader(channels: int, height: int, width: int) -> Callable[[Path], np.ndarray]:
    """Reads a picture: the largest part in its middle of the shape that is wanted, resized."""
    from sepconv.models.files import FileError

    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise FileError(
            "--calibration: a folder of pictures needs Pillow: pip install pillow"
        ) from error

    def load(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as picture:
                plain = picture.convert("L" if channels == 1 else "RGB")
                fitted = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
        except (OSError, UnidentifiedImageError) as error:
            raise FileError(f"--calibration: {path} is not a picture: {error}") from error
        return np.asarray(fitted, np.float32).reshape(height, width, channels)

    return load
