"""ONNX models as encoders and decoders. They run on one thread, so that sums have a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.protocol import Batch, Shape, base_name, file_bytes, sha256_of
from dpgmm_dist.errors import SpecError


class OnnxEncoder:
    """An ONNX model with one input; its first output is the embedding.

    The model gets images as float32 (n, c, h, w) in [0, 1], or as (n, h, w, c) if the last
    dimension of its input is the number of channels. It gets vectors as float32 (n, d). An output
    of more than two dimensions is flattened.
    """

    def __init__(self, path: str, shape: Shape = ()) -> None:
        data = file_bytes(path)
        self.session = _session(data, path)
        self.shape = shape
        self.name = f"onnx:{base_name(path)}"
        self.digest = sha256_of("dpgmm onnx 1", data)

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings (n, d) of a batch."""
        if isinstance(batch, list):
            raise SpecError(
                f"{self.name} was given text, but ONNX models need tokens: write a function that "
                "makes tokens and runs the model, and name it as MODULE:NAME"
            )
        rows = np.asarray(batch)
        input_shape = self.session.get_inputs()[0].shape
        if rows.dtype == np.uint8 and rows.ndim == 4:
            rows = rows.astype(np.float32) / np.float32(255)
            last = input_shape[-1] if len(input_shape) == 4 else None
            if last != rows.shape[3] or last == rows.shape[2]:
                rows = rows.transpose(0, 3, 1, 2)
            if len(input_shape) == 2:
                rows = rows.reshape(len(rows), -1)
        return run(self.session, np.ascontiguousarray(rows, dtype=np.float32), self.name)


def run(session: Any, rows: NDArray[np.float32], name: str) -> NDArray[Any]:
    """The first output of a model, flattened to (n, d) for n rows."""
    problem = ""
    output: Any = None
    try:
        output = session.run(None, {session.get_inputs()[0].name: rows})[0]
    except Exception:
        # The message of the runtime may quote values.
        problem = f"{name} does not take an input of shape {rows.shape}: check --shape and --batch"
    if problem:
        raise SpecError(problem)
    return np.asarray(output).reshape(len(rows), -1)


def _session(data: bytes, path: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise SpecError(
            f"onnx:{path} needs onnxruntime: pip install 'dpgmm-dist[encode]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = None
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        problem = f"{path} is not an ONNX model that can be loaded ({type(error).__name__})"
    if session is None:
        raise SpecError(problem)
    if len(session.get_inputs()) != 1:
        raise SpecError(
            f"{path}: the model has {len(session.get_inputs())} inputs, but an encoder has one"
        )
    return session
