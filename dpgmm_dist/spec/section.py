"""What the sections of a specification are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Read:
    """Annotation: ``read`` alone decides what the field holds.

    Pydantic's own PlainValidator would also serialise by the annotated union, with warnings.
    """

    read: Callable[[object], object]

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


class Section(BaseModel):
    """One section: frozen, without unknown keys, whose errors show no input."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # an input may hold credentials
        revalidate_instances="always",
    )
