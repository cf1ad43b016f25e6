"""ONNX models as encoders and decoders. They run on one thread, so that sums have a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.model_files import beside, exists, folder_with
from dpgmm_dist.encode.options import PICTURE_OPTIONS, EncoderOptions
from dpgmm_dist.encode.picture_input import CONFIG, PictureInput, from_config
from dpgmm_dist.encode.protocol import Batch, Shape, base_name, file_bytes, sha256_of
from dpgmm_dist.errors import SpecError

_DATA_FILES = ("_data", ".data")
"""What is appended to the name of a model for the file that holds the weights of a large one."""


class OnnxModel:
    """A model file, loaded. ``name`` and ``digest`` are those of an encoder."""

    def __init__(self, path: str) -> None:
        data = file_bytes(path)
        weights = [path + end for end in _DATA_FILES if exists(path + end)]
        self.session = _session(path if weights else data, path)
        self.path = path
        self.name = f"onnx:{base_name(path)}"
        self.digest = sha256_of("dpgmm onnx 1", data, *map(file_bytes, weights))
        self.inputs = {value.name: list(value.shape) for value in self.session.get_inputs()}

    def run(self, inputs: dict[str, NDArray[Any]], output: str | None = None) -> NDArray[Any]:
        """One output of the model, by default the first one, for inputs by name."""
        problem = ""
        result: Any = None
        try:
            result = self.session.run(None if output is None else [output], inputs)[0]
        except Exception:
            # The message of the runtime may quote values.
            shape = next(iter(inputs.values())).shape
            problem = (
                f"{self.name} does not take an input of shape {shape}: check --shape, --resize, "
                "--crop and --batch"
            )
        if problem:
            raise SpecError(problem)
        return np.asarray(result)


class OnnxEncoder:
    """An ONNX model with one input; its first output is the embedding.

    The model gets images as float32 (n, c, h, w), or as (n, h, w, c) if the last dimension of its
    input is the number of channels. Pixels are in [0, 1], or what ``preprocessor_config.json``
    beside the model and the options say. It gets vectors as float32 (n, d). An output of more than
    two dimensions is flattened.
    """

    def __init__(
        self,
        path: str,
        shape: Shape = (),
        options: EncoderOptions | None = None,
        model: OnnxModel | None = None,
    ) -> None:
        self.model = model or OnnxModel(path)
        if len(self.model.inputs) != 1:
            raise SpecError(
                f"{path}: the model has {len(self.model.inputs)} inputs, but an encoder of "
                "pictures or vectors has one, and an encoder of texts has input_ids"
            )
        self.shape = shape
        options = options or EncoderOptions()
        options.refuse_others(self.model.name, *PICTURE_OPTIONS)
        ((self.input, self.input_shape),) = self.model.inputs.items()
        self.picture = self._picture_input(options)
        self.name = self.model.name
        settings = [] if self.picture is None else [repr(self.picture)]
        self.digest = sha256_of(self.model.digest, *settings) if settings else self.model.digest

    def _picture_input(self, options: EncoderOptions) -> PictureInput | None:
        if len(self.input_shape) != 4:
            return None
        folder = folder_with(CONFIG, self.model.path)
        found = None
        if folder is not None:
            found = from_config(file_bytes(beside(folder, CONFIG)), beside(folder, CONFIG))
        channels = next((n for n in (self.input_shape[1], self.input_shape[3]) if n in (1, 3)), 3)
        return options.picture_input(found, channels)

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings (n, d) of a batch."""
        if isinstance(batch, list):
            raise SpecError(
                f"{self.name} was given text, but it takes no tokens: use a model with the input "
                "input_ids and its tokenizer.json beside it, or a function, MODULE:NAME"
            )
        rows = np.asarray(batch)
        if rows.dtype == np.uint8 and rows.ndim == 4:
            rows = self._pixels(rows)
        inputs = {self.input: np.ascontiguousarray(rows, dtype=np.float32)}
        return self.model.run(inputs).reshape(len(rows), -1)

    def _pixels(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pictures (n, h, w, c) as numbers, in the order of the dimensions of the input."""
        channels = pictures.shape[3]
        values = (self.picture or PictureInput(channels=channels)).normalised(pictures)
        if len(self.input_shape) == 2:
            return values.transpose(0, 3, 1, 2).reshape(len(values), -1)
        last = self.input_shape[-1] if len(self.input_shape) == 4 else None
        if last == channels and last != pictures.shape[2]:
            return values
        return values.transpose(0, 3, 1, 2)


def _session(model: bytes | str, path: str) -> Any:
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
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        problem = f"{path} is not an ONNX model that can be loaded ({type(error).__name__})"
    if session is None:
        raise SpecError(problem)
    return session
