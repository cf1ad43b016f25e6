"""What tests of whole releases share."""

from __future__ import annotations

import pytest

from ..draws import Recorder, recording


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Records what private sources draw, and may stop before a draw."""
    return recording(monkeypatch)
