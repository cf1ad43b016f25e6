"""What all tests share: one thread a process, no settings of the user's, quiet hypothesis.

A test marked ``statistical`` that fails is run once more. No other test is.
"""

from __future__ import annotations

import os
from collections.abc import Generator

# Before numpy is imported anywhere: pytest runs several processes, and no result may depend on it.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# As in a release (dpgmm_dist.engine.cluster): in CPython 3.11 Dask's profiler can deadlock.
os.environ.setdefault("DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED", "False")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# No deadline: a busy machine is not a failure. The same examples in every run.
settings.register_profile("dpgmm", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("dpgmm")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the user's ``DPGMM_*`` variables: they override specifications."""
    for variable in list(os.environ):
        if variable.startswith("DPGMM_"):
            monkeypatch.delenv(variable)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Run a statistical test again where it fails, and say so at the end of the session."""
    try:
        return (yield)
    except AssertionError as error:
        if item.get_closest_marker("statistical") is None:
            raise
        item.warn(pytest.PytestWarning(f"{item.nodeid} failed and is run once more: {error}"))
    return item.runtest()
