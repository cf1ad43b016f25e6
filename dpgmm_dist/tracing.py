"""OpenTelemetry spans, where its API is installed (extra ``otel``); otherwise nothing.

Spans have names of steps, release ids and the time that they took. Exceptions are not recorded:
they could quote values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dpgmm_dist.version import __version__


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[None]:
    """Trace the work in this block; attributes are public and get the prefix ``dpgmm.``."""
    try:
        from opentelemetry.trace import StatusCode, get_tracer
    except ImportError:
        yield
        return
    tracer = get_tracer("dpgmm_dist", __version__)
    named = {f"dpgmm.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(
        name, attributes=named, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except BaseException:
            current.set_status(StatusCode.ERROR)
            raise
