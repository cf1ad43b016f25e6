"""Small ONNX models, written as protocol buffers by hand, without the onnx package."""

from __future__ import annotations

import numpy as np


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_number(1, size) for size in values.shape)
    kind = {"f": 1, "i": 7}[values.dtype.kind]
    return dims + _number(2, kind) + _bytes(8, name) + _bytes(9, values.tobytes())


def _value(name: str, shape: tuple[int | str, ...], kind: int = 1) -> bytes:
    dims = b"".join(
        _bytes(1, _number(1, size) if isinstance(size, int) else _bytes(2, size)) for size in shape
    )
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, dims)))


def linear(matrix: np.ndarray, shape: tuple[int | str, ...]) -> bytes:
    """A model that flattens its input of this shape and multiplies it by a matrix (d, p)."""
    flat = _bytes(1, "x") + _bytes(1, "to") + _bytes(2, "flat") + _bytes(4, "Reshape")
    product = _bytes(1, "flat") + _bytes(1, "matrix") + _bytes(2, "y") + _bytes(4, "MatMul")
    to = np.array([-1, matrix.shape[0]], dtype=np.int64)
    graph = (
        _bytes(1, flat)
        + _bytes(1, product)
        + _bytes(2, "tiny")
        + _bytes(5, _tensor("matrix", matrix.astype(np.float32)))
        + _bytes(5, _tensor("to", to))
        + _bytes(11, _value("x", shape))
        + _bytes(12, _value("y", (shape[0], matrix.shape[1])))
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13))


def lookup(table: np.ndarray) -> bytes:
    """A model of texts: the row of a table (words, d) for each token, (n, t, d)."""
    node = _bytes(1, "table") + _bytes(1, "input_ids") + _bytes(2, "tokens") + _bytes(4, "Gather")
    graph = (
        _bytes(1, node)
        + _bytes(2, "lookup")
        + _bytes(5, _tensor("table", table.astype(np.float32)))
        + _bytes(11, _value("input_ids", ("n", "t"), 7))
        + _bytes(11, _value("attention_mask", ("n", "t"), 7))
        + _bytes(12, _value("tokens", ("n", "t", table.shape[1])))
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13))
