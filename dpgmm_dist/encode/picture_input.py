"""The preparation of pictures for a model: resized, cropped in the centre, normalised.

The settings come from the ``preprocessor_config.json`` that is stored beside a model, from the
library that the model is for, or from options. The pixels are resized by Pillow, as these
libraries do it, so the embeddings are those of the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.errors import SpecError

Size = tuple[int, int]
CONFIG = "preprocessor_config.json"
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Names in the order of Pillow's numbers, which the configuration files use."""
_MOST_PIXELS = 1 << 26
"""Most pixels of a resized picture: a long and narrow one could exceed the memory."""
_UNSUPPORTED = ("do_pad", "do_thumbnail", "rescale_offset", "do_flip_channel_order")


@dataclass(frozen=True)
class PictureInput:
    """The steps that prepare a picture for a model, in the order of the fields."""

    resize: int | Size | None = None
    """Pixels of the shorter side, or (height, width); None keeps the size."""
    crop: Size | None = None
    """(height, width) that is cut out of the centre; a smaller picture gets a black border."""
    interpolation: str = "bilinear"
    rounds_crop: bool = False
    """Whether an odd border of 3, 7, ... pixels is cut as torchvision does it (rounded)."""
    channels: int = 3
    """1 (grey) or 3."""
    scale: float = 1 / 255
    """What pixels of 0 to 255 are multiplied by."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted after that; one value, or one for each channel in the order red, green, blue."""
    std: tuple[float, ...] = (1.0,)
    """Divided by after that, likewise."""
    bgr: bool = False
    """Whether the model wants blue first."""

    def __post_init__(self) -> None:
        """Check the settings; SpecError names the first that is wrong."""
        if self.interpolation not in INTERPOLATIONS:
            raise SpecError(
                f"the interpolation {self.interpolation!r} is unknown: use one of "
                f"{', '.join(INTERPOLATIONS)}"
            )
        for name, values in (("mean", self.mean), ("standard deviation", self.std)):
            if len(values) not in (1, self.channels) or not np.isfinite(values).all():
                raise SpecError(
                    f"the {name} of pixels must be one number or {self.channels} (one for each "
                    f"channel), got {values}"
                )
        if min(self.std) <= 0:
            raise SpecError(f"the standard deviation of pixels must be positive, got {self.std}")

    @property
    def size(self) -> Size | None:
        """(height, width) of every prepared picture; None if pictures keep their own size."""
        if self.crop is not None:
            return self.crop
        if isinstance(self.resize, int):
            raise SpecError(
                f"pictures resized to a shorter side of {self.resize} have different sizes: say "
                "which part the model takes, --crop HxW, or give both sides, --resize HxW"
            )
        return self.resize

    def prepared(self, picture: Any) -> NDArray[np.uint8]:
        """Pixels (h, w, c) of a Pillow image, resized and cropped; ValueError if it grows huge."""
        from PIL import Image

        picture = picture.convert("L" if self.channels == 1 else "RGB")
        width, height = picture.size
        if self.resize is not None:
            to_height, to_width = self._resized(height, width)
            if to_height * to_width > _MOST_PIXELS:
                raise ValueError("a picture is too long and narrow for its shorter side")
            if (to_height, to_width) != (height, width):
                method = Image.Resampling[self.interpolation.upper()]
                picture = picture.resize((to_width, to_height), method)
        pixels = np.asarray(picture, np.uint8).reshape(picture.height, picture.width, -1)
        return pixels if self.crop is None else _centre(pixels, self.crop, self.rounds_crop)

    def normalised(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pictures (n, h, w, c) as the model's numbers; each depends on its own pixel alone."""
        values = pictures.astype(np.float32)
        if self.scale == 1 / 255:
            values /= np.float32(255)  # rounds better than the product
        else:
            values *= np.float32(self.scale)
        values -= np.asarray(self.mean, np.float32)
        values /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(values[..., ::-1]) if self.bgr else values

    def _resized(self, height: int, width: int) -> Size:
        if not isinstance(self.resize, int):
            return self.resize or (height, width)
        if height <= width:
            return self.resize, int(self.resize * width / height)
        return int(self.resize * height / width), self.resize


def _centre(pixels: NDArray[np.uint8], size: Size, rounds: bool) -> NDArray[np.uint8]:
    """The centre of a picture (h, w, c), with a black border where it is too small."""
    missing = [max(0, want - have) for want, have in zip(size, pixels.shape[:2], strict=True)]
    if any(missing):
        border = [(gap // 2, gap - gap // 2) for gap in missing]
        pixels = np.pad(pixels, [*border, (0, 0)])
    top, left = (
        round((have - want) / 2) if rounds else (have - want) // 2
        for want, have in zip(size, pixels.shape[:2], strict=True)
    )
    return pixels[top : top + size[0], left : left + size[1]]


def from_config(data: bytes, where: str) -> PictureInput:
    """The settings of a ``preprocessor_config.json``, as the transformers library writes them.

    Raises
    ------
    SpecError
        When the bytes are no such file, or ask for a step that is not supported. The message names
        the file as ``where``.
    """
    try:
        config = json.loads(data)
        if not isinstance(config, dict):
            raise ValueError
        for step in _UNSUPPORTED:
            if config.get(step):
                raise SpecError(
                    f"{where} asks for {step}, which is not supported: use the model through a "
                    "Python function, MODULE:NAME"
                )
        return _from_values(config)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise SpecError(
            f"{where} is not the configuration of a picture model: give --resize, --crop, --mean "
            "and --std in its place"
        ) from None


def _from_values(config: Mapping[str, Any]) -> PictureInput:
    crops = bool(config.get("do_center_crop", "crop_size" in config))
    crop = _both_sides(config["crop_size"]) if crops else None
    resize: int | Size | None = None
    if config.get("do_resize", "size" in config):
        resize = _side(config["size"], shorter=crops)
        share = config.get("crop_pct")
        if share and isinstance(resize, int):  # ConvNeXt
            resize, crop = int(resize / share), (resize, resize)
    normalise = config.get("do_normalize", "image_mean" in config)
    number = config.get("resample", 2)
    return PictureInput(
        resize=resize,
        crop=crop,
        interpolation=INTERPOLATIONS[number] if isinstance(number, int) else str(number),
        scale=float(config.get("rescale_factor", 1 / 255))
        if config.get("do_rescale", True)
        else 1.0,
        mean=_numbers(config["image_mean"]) if normalise else (0.0,),
        std=_numbers(config["image_std"]) if normalise else (1.0,),
    )


def _side(value: Any, *, shorter: bool) -> int | Size:
    """A size of a configuration. One number is the shorter side if pictures are cropped later."""
    if isinstance(value, Mapping) and "shortest_edge" in value:
        return int(value["shortest_edge"])
    if isinstance(value, int) and shorter:
        return value
    return _both_sides(value)


def _both_sides(value: Any) -> Size:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Mapping):
        return int(value["height"]), int(value["width"])
    height, width = value
    return int(height), int(width)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in (value if isinstance(value, list) else [value]))
