"""Base of the types that hold rows, or lead to them."""

from __future__ import annotations


class Opaque:
    """A type whose repr says only what it is: Dask logs the arguments and results of tasks."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
