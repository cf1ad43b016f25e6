"""The decoder of a job: its options, and the recipe from which workers build it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.artifact.part_files import storage_errors
from dpgmm_dist.encode.decoders import Decoder, find_decoder, pictures
from dpgmm_dist.encode.learned import LearnedDecoder, learn
from dpgmm_dist.encode.nearest import NearestItems
from dpgmm_dist.encode.protocol import Shape, base_name
from dpgmm_dist.encode.public_items import PublicColumns, read_public_items
from dpgmm_dist.errors import SpecError

Decoded = NDArray[np.uint8] | list[str]
"""Pictures (n, h, w, c), or n texts."""


@dataclass(frozen=True)
class DecodeOptions:
    """Options of the decoders that use public items."""

    repeat: int | None = None
    """The most rows that become the same item; None for any number."""
    public: PublicColumns = field(default_factory=PublicColumns)
    fit: str = "ridge"
    """``ridge`` or ``network``."""
    save_decoder: str | None = None
    """The file that a learned decoder is saved to."""

    def check(self, decoder: str) -> None:
        """Raise a SpecError if an option does nothing with a decoder."""
        kind = decoder.partition(":")[0]
        if self.repeat is not None and self.repeat < 1:
            raise SpecError(f"--repeat must be at least 1, got {self.repeat}")
        for given, option, kinds in (
            (self.repeat is not None, "--repeat", ("nearest",)),
            (self.public.label is not None, "--public-label", ("nearest",)),
            (
                self.public != PublicColumns(),
                "--public-item or --public-embedding",
                ("nearest", "fit"),
            ),
            (self.fit != "ridge", "--fit", ("fit",)),
            (self.save_decoder is not None, "--save-decoder", ("fit",)),
        ):
            if given and kind not in kinds:
                use = " or ".join(f"{name}:PUBLIC" for name in kinds)
                raise SpecError(f"{option} is for --decoder {use}: leave it out with {decoder}")


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a decoder. Workers build the same one from it."""

    text: str
    shape: Shape
    public: PublicColumns
    learned: bytes | None = None

    def load(self) -> Decoder | NearestItems:
        """The decoder, loaded once in each process."""
        return _loaded(self)


@functools.lru_cache(maxsize=2)
def _loaded(recipe: Recipe) -> Decoder | NearestItems:
    kind, _, rest = recipe.text.partition(":")
    if kind == "nearest" and rest:
        return NearestItems(read_public_items(rest, recipe.public, recipe.shape))
    if recipe.learned is not None:
        return LearnedDecoder.from_bytes(recipe.learned, f"fit:{base_name(rest)}")
    return find_decoder(recipe.text)


def prepared(decoder: str, shape: Shape, options: DecodeOptions) -> tuple[Recipe, str]:
    """The recipe of a decoder, learned and kept where that is asked for, and its name.

    Parameters
    ----------
    decoder : as for `dpgmm_dist.encode.decode_job.write_images`.
    shape : shape of the pictures; () if it is not given.
    options : of decoders that use public items.

    Raises
    ------
    SpecError
        When there is no such decoder, or the shape is missing or is another one.
    """
    kind, _, rest = decoder.partition(":")
    recipe = Recipe(decoder, shape, options.public)
    if kind == "fit" and rest:
        learned = learn(read_public_items(rest, options.public, shape), options.fit).to_bytes()
        recipe = replace(recipe, learned=learned)
        if options.save_decoder is not None:
            import fsspec

            with (
                storage_errors("write the decoder", options.save_decoder),
                fsspec.open(options.save_decoder, "wb") as file,
            ):
                file.write(learned)
    loaded = recipe.load()
    if isinstance(loaded, NearestItems):
        return replace(recipe, shape=loaded.items.shape), f"nearest:{base_name(rest)}"
    known = loaded.shape if isinstance(loaded, LearnedDecoder) else shape
    if not known:
        raise SpecError(f"--decoder {decoder} needs the shape of the pictures: give --shape HxW")
    if shape and shape != known:
        raise SpecError(f"{loaded.name} gives pictures of the shape {known}, not {shape}")
    return replace(recipe, shape=known), loaded.name


def decode_rows(
    recipe: Recipe,
    rows: NDArray[Any],
    labels: list[str],
    chosen: NDArray[np.int64] | None = None,
) -> tuple[Decoded, NDArray[np.int64] | None]:
    """Pictures or texts of rows (n, d), and the public item (n,) that each became, if any.

    Parameters
    ----------
    recipe : the decoder.
    rows : embeddings (n, d).
    labels : their labels (n,) as text.
    chosen : the public items (n,) where they are chosen already.
    """
    decoder = recipe.load()
    if not isinstance(decoder, NearestItems):
        return pictures(decoder, rows, recipe.shape), None
    index = decoder.choose(rows, labels) if chosen is None else chosen
    items = decoder.items
    return (items.pictures(index) if items.shape else items.texts(index)), index
