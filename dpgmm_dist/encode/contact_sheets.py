"""Contact sheets: the first pictures or texts of each label on one page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.encode.embedding_map import label_order

Picture = NDArray[np.uint8]
SIDE = 10
"""A contact sheet has at most this many pictures in a row, and this many rows for a label."""
_GAP = 1
"""Pixels between the pictures of a sheet."""
_LEAST_PIXELS = 28
"""Smaller pictures are enlarged on a page with two columns, so that its words fit."""


def picture_pages(sheets: Mapping[str, Sequence[Picture]]) -> dict[str, bytes]:
    """``contact.png`` with a row for each label, and ``contact-LABEL.png`` for each label."""
    order = sorted((label for label in sheets if sheets[label]), key=label_order)
    pages = {}
    if order:
        pages["contact.png"] = [list(sheets[label][:SIDE]) for label in order]
    for label in order:
        images = sheets[label]
        pages[f"contact-{file_name(label)}.png"] = [
            list(images[start : start + SIDE]) for start in range(0, len(images), SIDE)
        ]
    return {name: png(contact_sheet(rows)) for name, rows in pages.items()}


def text_page(sheets: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """``contact.txt`` with the first texts of each label, a line each."""
    lines = []
    for label in sorted(sheets, key=label_order):
        lines.append(f"== {label}")
        lines += [" ".join(text.split())[:200] for text in sheets[label][:SIDE]]
    return {"contact.txt": ("\n".join(lines) + "\n").encode()} if lines else {}


def contact_sheet(rows: list[list[Picture]]) -> Picture:
    """One page (H, W, c) with pictures (h, w, c) in rows, separated by thin white lines."""
    height, width, channels = rows[0][0].shape
    columns = max(len(row) for row in rows)
    page = np.full(
        (len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels),
        255,
        np.uint8,
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = _GAP + i * (height + _GAP), _GAP + j * (width + _GAP)
            page[top : top + height, left : left + width] = image
    return page


def side_by_side(
    left: Mapping[str, Sequence[Picture]],
    right: Mapping[str, Sequence[Picture]],
    titles: tuple[str, str],
) -> bytes:
    """A PNG with a row for each label: pictures of one source, then of the other, under titles.

    Parameters
    ----------
    left, right : pictures (h, w, c) by label, all of one shape.
    titles : printed above each half, the first in red.
    """
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    order = sorted({*left, *right}, key=label_order)
    shape = next(image.shape for half in (left, right) for page in half.values() for image in page)
    blank = np.full(shape, 255, np.uint8)
    scale = max(1, -(-_LEAST_PIXELS // min(shape[:2])))
    halves = []
    for half in (left, right):
        rows = [[*half.get(label, ())][:SIDE] for label in order]
        padded = [row + [blank] * (SIDE - len(row)) for row in rows]
        page = contact_sheet(padded)
        page = np.repeat(np.repeat(page, scale, axis=0), scale, axis=1)
        halves.append(np.broadcast_to(page, (*page.shape[:2], 3)))
    height, width, _ = halves[0].shape
    margin, top, between = 70, 24, 12
    image = Image.new("RGB", (margin + 2 * width + between, top + height), "white")
    draw = ImageDraw.Draw(image)
    for page, title, colour, start in zip(
        halves, titles, ("#b00020", "black"), (margin, margin + width + between), strict=True
    ):
        image.paste(Image.fromarray(np.ascontiguousarray(page)), (start, top))
        draw.text((start, 6), title, fill=colour)
    for i, label in enumerate(order):
        draw.text((4, top + int((i + 0.4) * height / len(order))), label[:11], fill="black")
    data = io.BytesIO()
    description = PngInfo()
    description.add_text("Description", ", ".join(titles))
    image.save(data, format="PNG", optimize=True, pnginfo=description)
    return data.getvalue()


def png(image: Picture) -> bytes:
    """A picture (h, w, c) as a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    flat = image[:, :, 0] if image.shape[2] == 1 else image
    Image.fromarray(flat).save(out, format="PNG", optimize=True)
    return out.getvalue()


def file_name(label: str) -> str:
    """A label made safe for use in a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", label).lstrip(".")[:60] or "_"
