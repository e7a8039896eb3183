"""Runs ONNX files in ONNX Runtime, to compare them with what they were made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv.onnx_file.write import model_of
from sepconv.program.network import Network


def run(model: Any, *inputs: np.ndarray, optimised: bool = True) -> list[np.ndarray]:
    """The outputs of an `onnx.ModelProto`, its bytes or its path."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # Sums of 8 bits that do not saturate, on every processor.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = model if isinstance(model, str | bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    found: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
    return found


def checked(network: Network) -> Any:
    """The `onnx.ModelProto` of a network, after ONNX's own checks."""
    import onnx

    model = model_of(network)
    onnx.checker.check_model(model, full_check=True)
    return model
