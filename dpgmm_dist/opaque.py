"""The base of types that hold rows, or give access to them."""

from __future__ import annotations


class Opaque:
    """A type whose repr is only its name, because Dask logs the arguments and results of tasks."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
