"""Tokens of texts for a model, by the ``tokenizer.json`` that is stored beside it."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.model_files import beside, settings
from dpgmm_dist.encode.protocol import file_bytes
from dpgmm_dist.errors import SpecError

Tokens = dict[str, NDArray[np.int64]]
TOKENIZER = "tokenizer.json"
_LENGTHS = "sentence_bert_config.json"
_POOLING = "1_Pooling/config.json"
_MOST_TOKENS = 512


class TextInput:
    """Cuts texts into tokens, and pads those of a batch to the longest.

    Parameters
    ----------
    folder : where ``tokenizer.json`` is.
    most : tokens that are kept of a text; None takes what the files say, or 512.

    Raises
    ------
    SpecError
        When the tokenizers library is missing, or the files cannot be read.
    """

    def __init__(self, folder: str, most: int | None = None) -> None:
        where = beside(folder, TOKENIZER)
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise SpecError(
                f"{where} needs the tokenizers library: pip install 'dpgmm-dist[encode]'"
            ) from None
        data = file_bytes(where)
        try:
            self.tokenizer = Tokenizer.from_buffer(data)
            stated = json.loads(data).get("truncation") or {}
        except Exception as error:
            raise SpecError(
                f"{where} is not a file of the tokenizers library ({type(error).__name__})"
            ) from None
        self.most = most or _stated_length(folder) or stated.get("max_length") or _MOST_TOKENS
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.most)
        self.definition = data + str(self.most).encode()
        """What defines the tokens, for digests."""
        padding = (self.tokenizer.token_to_id(text) for text in ("[PAD]", "<pad>", "<|endoftext|>"))
        self.pad = next((number for number in padding if number is not None), 0)

    def lengths(self, texts: list[str]) -> NDArray[np.int64]:
        """The number of tokens (n,) of each text, at least 1."""
        return np.array(
            [max(1, len(encoding.ids)) for encoding in self.tokenizer.encode_batch(texts)], np.int64
        )

    def __call__(self, texts: list[str]) -> Tokens:
        """``input_ids``, ``attention_mask`` and ``token_type_ids``, each (n, t)."""
        encoded = self.tokenizer.encode_batch(texts)
        shape = len(encoded), max(1, *(len(encoding.ids) for encoding in encoded))
        ids = np.full(shape, self.pad, np.int64)
        mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, encoding in enumerate(encoded):
            count = len(encoding.ids)
            ids[row, :count] = encoding.ids
            mask[row, :count] = 1
            types[row, :count] = encoding.type_ids
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def pooled(
    tokens: NDArray[np.float32], mask: NDArray[np.int64], pooling: str
) -> NDArray[np.float32]:
    """Embeddings (n, d) of the outputs (n, t, d) for tokens: their mean, or the first one.

    Parameters
    ----------
    tokens : outputs of a model.
    mask : (n, t), 1 for tokens and 0 for padding.
    pooling : "mean" or "first".
    """
    if pooling == "first":
        return tokens[:, 0]
    weights = mask[:, :, None].astype(np.float32)
    return np.asarray((tokens * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1))


def stated_pooling(folder: str) -> str | None:
    """What ``1_Pooling/config.json`` says, as sentence-transformers stores it; None for no file.

    Raises
    ------
    SpecError
        When the file asks for another pooling than the mean or the first token.
    """
    config = settings(folder, _POOLING)
    modes = {key for key, value in config.items() if key.startswith("pooling_mode_") and value}
    modes |= {f"pooling_mode_{config['pooling_mode']}"} if "pooling_mode" in config else set()
    if not modes:
        return None
    if modes <= {"pooling_mode_cls_token", "pooling_mode_cls"}:
        return "first"
    if modes <= {"pooling_mode_mean_tokens", "pooling_mode_mean"}:
        return "mean"
    raise SpecError(
        f"{beside(folder, _POOLING)} asks for {', '.join(sorted(modes))}: only the mean of tokens "
        "and the first token are supported; use sentence-transformers:PATH or MODULE:NAME"
    )


def _stated_length(folder: str) -> int | None:
    most = settings(folder, _LENGTHS).get("max_seq_length")
    return most if isinstance(most, int) and most > 0 else None
