"""Options of ``dpgmm encode`` about the input of a model, beside the model's own files."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any

from dpgmm_dist.encode.picture_input import PictureInput, Size
from dpgmm_dist.errors import SpecError

POOLINGS = ("mean", "first")


@dataclass(frozen=True)
class EncoderOptions:
    """Options of encoders that are trained models. None leaves the choice to the model's files."""

    resize: str | None = None
    """``N`` for the shorter side, or ``HxW``."""
    crop: str | None = None
    """``N`` or ``HxW``."""
    mean: str | None = None
    """One number or three, separated by commas."""
    std: str | None = None
    channels: str | None = None
    """``rgb`` or ``bgr``."""
    interpolation: str | None = None
    pooling: str | None = None
    """``mean`` or ``first``: which tokens make the embedding."""
    max_tokens: int | None = None
    """Tokens that are kept of a text."""

    def __post_init__(self) -> None:
        """Check what needs no model."""
        if self.pooling not in (None, *POOLINGS):
            raise SpecError(f"--pooling must be mean or first, got {self.pooling!r}")
        if self.channels not in (None, "rgb", "bgr"):
            raise SpecError(f"--channels must be rgb or bgr, got {self.channels!r}")
        if self.max_tokens is not None and not 3 <= self.max_tokens <= 1 << 16:
            raise SpecError(f"--max-tokens must be from 3 to {1 << 16}, got {self.max_tokens}")

    def refuse_others(self, encoder: str, *taken: str) -> None:
        """Raise a SpecError if an option is given that an encoder does not take."""
        for name in (field.name for field in fields(self)):
            if name not in taken and getattr(self, name) is not None:
                raise SpecError(
                    f"--{name.replace('_', '-')} does nothing with {encoder}: leave it out"
                )

    def picture_input(self, found: PictureInput | None, channels: int = 3) -> PictureInput | None:
        """The settings in a model's files, for its number of channels, as changed by the options.

        None if neither says anything.
        """
        changes: dict[str, Any] = {}
        if self.resize is not None:
            changes["resize"] = _side("--resize", self.resize)
        if self.crop is not None:
            side = _side("--crop", self.crop)
            changes["crop"] = (side, side) if isinstance(side, int) else side
        if self.mean is not None:
            changes["mean"] = _numbers("--mean", self.mean)
        if self.std is not None:
            changes["std"] = _numbers("--std", self.std)
        if self.channels is not None:
            changes["bgr"] = self.channels == "bgr"
        if self.interpolation is not None:
            changes["interpolation"] = self.interpolation
        if found is None and not changes:
            return None
        return replace(found or PictureInput(), channels=channels, **changes)


PICTURE_OPTIONS = ("resize", "crop", "mean", "std", "channels", "interpolation")
TEXT_OPTIONS = ("pooling", "max_tokens")


def _side(name: str, text: str) -> int | Size:
    parts = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text.lower())
    sides = [int(part) for part in parts.groups() if part is not None] if parts else [0]
    if min(sides) == 0:
        raise SpecError(f"{name} {text}: write N or HxW in pixels, such as 256 or 224x224")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SpecError(
            f"{name} {text}: write one number or three, such as 0.485,0.456,0.406"
        ) from None
