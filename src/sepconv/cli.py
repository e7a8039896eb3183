"""The command line, `sepconv`, of all commands; what one needs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sepconv import doctor
from sepconv.bench import command as bench
from sepconv.demo import command as demo
from sepconv.explain import command as explain
from sepconv.models import command as models
from sepconv.models import export_command, quantize_command
from sepconv.program import command as program

__all__ = ["main"]

#: The modules of the commands, in the order in which the help lists them.
_COMMANDS = (demo, bench, doctor, explain, models, quantize_command, program, export_command)

_ABOUT = """\
Fast depthwise and depthwise-separable convolution on CPUs.

  sepconv demo     trains a network on real data with Keras' layers, then with
                   sepconv's, and compares time, memory and accuracy
  sepconv bench    times sepconv against other libraries and the machine's limits
  sepconv doctor   says what was found here, and how to mend what is missing

and of Keras models in files:

  sepconv explain     says what every layer costs, and where the time goes
  sepconv accelerate  replaces Keras' layers by sepconv's
  sepconv optimize    folds and fuses layers for inference
  sepconv factorize   approximates ordinary convolutions by separable ones
  sepconv quantize    makes an int8 model, with examples to go by
  sepconv compile     makes one native call of a whole model, a program
  sepconv export      writes an ONNX file of a model or a program

and of programs, which need no Keras:

  sepconv run         runs one on arrays
  sepconv explain     says where its time goes
"""
_EXAMPLES = """\
examples:
  sepconv doctor
  sepconv demo
  sepconv demo --engine torch --output torch.html
  sepconv demo --help
  sepconv bench --quick
  sepconv explain MobileNet
  sepconv accelerate model.keras fast.keras
  sepconv compile model.keras model.sepconv
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sepconv",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in _COMMANDS:
        module.add_parsers(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: what follows `sepconv`; None takes the process' own.

    Returns:
        The exit code: 0, 1 where something is broken or failed, 2 where the command cannot be
        carried out as given, 130 where it was interrupted, 143 where it was terminated.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.version:
        from sepconv import __version__

        print(f"sepconv {__version__}")
        return 0
    if options.command is None:
        parser.print_help()
        return 0
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
