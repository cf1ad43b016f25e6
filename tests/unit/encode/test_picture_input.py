from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpgmm_dist.encode.options import EncoderOptions
from dpgmm_dist.encode.picture_input import PictureInput, from_config
from dpgmm_dist.encode.raw_rows import read_picture
from dpgmm_dist.errors import SpecError

CLIP = {
    "crop_size": {"height": 24, "width": 24},
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "resample": 3,
    "size": {"shortest_edge": 24},
}


def config(**values: Any) -> PictureInput:
    return from_config(json.dumps(values).encode(), "preprocessor_config.json")


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_configurations_of_the_forms_in_use() -> None:
    clip = config(**CLIP)
    assert clip == PictureInput(
        24, (24, 24), "bicubic", mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)
    )
    old_clip = config(**CLIP | {"crop_size": 24, "size": 24})
    assert old_clip == clip
    vit = config(size=32, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    assert vit.resize == (32, 32) and vit.crop is None and vit.size == (32, 32)
    convnext = config(size={"shortest_edge": 224}, crop_pct=0.875, resample=2)
    assert convnext.resize == 256 and convnext.size == (224, 224)
    assert config(do_rescale=False).scale == 1.0
    for values in ({"do_pad": True}, {"do_center_crop": True}, {"size": {"longest_edge": 3}}):
        with pytest.raises(SpecError, match=r"do_pad|preprocessor_config.json is not"):
            config(**values)
    with pytest.raises(SpecError, match="is not the configuration"):
        from_config(b"[1]", "x.json")


def test_resizing_and_cropping_are_those_of_pillow() -> None:
    image = picture(40, 60)
    pixels = config(**CLIP).prepared(image)
    resized = np.asarray(image.resize((36, 24), Image.Resampling.BICUBIC))
    assert pixels.shape == (24, 24, 3) and (pixels == resized[:, 6:30]).all()
    small = PictureInput(crop=(8, 8)).prepared(picture(4, 6))
    assert small[:2].max() == 0 and small[2:6, 1:7].max() > 0
    odd = np.asarray(picture(7, 4))
    floor, rounded = (
        PictureInput(crop=(4, 4), rounds_crop=r).prepared(picture(7, 4)) for r in (0, 1)
    )
    assert (floor == odd[1:5]).all() and (rounded == odd[2:6]).all()
    grey = PictureInput(resize=(5, 5), channels=1, mean=(0.1,)).prepared(picture(9, 9))
    assert grey.shape == (5, 5, 1)


def test_numbers_and_the_order_of_channels() -> None:
    pixels = np.array([[[[255, 0, 51]]]], np.uint8)
    plain = PictureInput(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 0.1))
    np.testing.assert_allclose(plain.normalised(pixels).ravel(), [1, -0.25, 2], rtol=1e-6)
    turned = PictureInput(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 0.1), bgr=True)
    np.testing.assert_allclose(turned.normalised(pixels).ravel(), [2, -0.25, 1], rtol=1e-6)
    assert PictureInput(scale=1.0).normalised(pixels).ravel().tolist() == [255, 0, 51]


def test_options_change_what_the_files_say() -> None:
    found = config(**CLIP)
    assert EncoderOptions().picture_input(None) is None
    assert EncoderOptions().picture_input(found) == found
    changed = EncoderOptions(crop="16", mean="0.5", channels="bgr").picture_input(found)
    assert changed is not None and changed.crop == (16, 16) and changed.mean == (0.5,)
    assert changed.bgr and changed.std == found.std
    sized = EncoderOptions(resize="10x12").picture_input(None)
    assert sized is not None and sized.size == (10, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "big"}, "--resize big: write N or HxW"),
        ({"crop": "0"}, "--crop 0"),
        ({"mean": "a,b"}, "--mean a,b: write one number"),
        ({"std": "0"}, "must be positive"),
        ({"std": "1,2"}, "one number or 3"),
        ({"channels": "rbg"}, "must be rgb or bgr"),
        ({"interpolation": "cubic"}, "'cubic' is unknown"),
        ({"pooling": "last"}, "must be mean or first"),
        ({"max_tokens": 1}, "--max-tokens"),
        ({"resize": "32"}, "say which part the model takes"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        prepared = EncoderOptions(**options).picture_input(None)
        assert prepared is None or prepared.size


def test_a_picture_that_would_grow_beyond_memory_cannot_be_read() -> None:
    """One pixel high and thousands wide, it would be resized to gigabytes."""
    prepare = PictureInput(resize=256, crop=(224, 224))
    for size, readable in (((1 << 14, 1), False), ((300, 1), True)):
        file = io.BytesIO()
        Image.new("RGB", size).save(file, "PNG")
        picture = read_picture(file.getvalue(), (224, 224, 3), prepare)
        assert (picture is not None) == readable
