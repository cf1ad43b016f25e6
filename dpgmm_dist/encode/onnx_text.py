"""ONNX models of texts, with the tokenizer that is stored beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.model_files import folder_with
from dpgmm_dist.encode.onnx import OnnxModel
from dpgmm_dist.encode.options import TEXT_OPTIONS, EncoderOptions
from dpgmm_dist.encode.protocol import Batch, sha256_of
from dpgmm_dist.encode.text_input import TOKENIZER, TextInput, pooled, stated_pooling
from dpgmm_dist.errors import SpecError

IDS = "input_ids"
_SENTENCE = "sentence_embedding"


class OnnxTextEncoder:
    """An ONNX model with the input ``input_ids``, such as an exported sentence transformer.

    An output named ``sentence_embedding``, or a first output (n, d), is the embedding. A first
    output (n, t, d) has a vector for each token: these are pooled.
    """

    def __init__(self, model: OnnxModel, options: EncoderOptions) -> None:
        self.model, self.name = model, model.name
        options.refuse_others(self.name, *TEXT_OPTIONS)
        folder = folder_with(TOKENIZER, model.path)
        if folder is None:
            raise SpecError(
                f"{model.path} takes tokens, but there is no {TOKENIZER} beside it: copy the one "
                "of the model there"
            )
        self.input = TextInput(folder, options.max_tokens)
        self.pooling = options.pooling or stated_pooling(folder) or "mean"
        outputs = [value.name for value in model.session.get_outputs()]
        self.output = _SENTENCE if _SENTENCE in outputs else outputs[0]
        self.digest = sha256_of(model.digest, self.input.definition, self.pooling)

    def groups(self, rows: Batch) -> NDArray[np.int64]:
        """The number of tokens (n,) of each text. Only texts of equal length share a batch."""
        return self.input.lengths(_texts(rows, self.name))

    def __call__(self, batch: Batch) -> NDArray[Any]:
        """Embeddings (n, d) of n texts."""
        tokens = self.input(_texts(batch, self.name))
        inputs = {name: tokens[name] for name in self.model.inputs if name in tokens}
        if len(inputs) != len(self.model.inputs):
            unknown = sorted(set(self.model.inputs) - set(inputs))
            raise SpecError(f"{self.name} has inputs that texts do not give: {', '.join(unknown)}")
        output = self.model.run(inputs, self.output)
        if output.ndim == 3:
            return pooled(output, tokens["attention_mask"], self.pooling)
        return output.reshape(len(output), -1)


def _texts(rows: Batch, name: str) -> list[str]:
    if not isinstance(rows, list):
        raise SpecError(f"{name} takes text, not pictures or numbers: choose a column of text")
    return rows
