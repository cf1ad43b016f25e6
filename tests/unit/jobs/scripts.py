"""Scripts of jobs/ as modules, for their tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def script(name: str) -> Any:
    """The script jobs/NAME.py, which may import its neighbours as it does where it is run."""
    if str(ROOT / "jobs") not in sys.path:
        sys.path.append(str(ROOT / "jobs"))
    found = importlib.util.spec_from_file_location(f"{name}_job", ROOT / "jobs" / f"{name}.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module
