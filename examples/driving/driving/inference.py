"""Sessions of ONNX Runtime for verified model files."""

from __future__ import annotations

from typing import Any

from driving.model_files import Model, model_path


def session(model: Model, threads: int) -> Any:
    """Return a session of `model`.

    Raises:
        OperatorError: the model file is missing or changed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model_path(model)), options, providers=["CPUExecutionProvider"])
