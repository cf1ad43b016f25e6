"""What a receipt says about the privacy unit, and about what was estimated."""

from __future__ import annotations

from dpgmm_dist.spec.release_spec import ReleaseSpec


def unit_words(spec: ReleaseSpec) -> str:
    """What one privacy unit is, and what of it counts."""
    unit = spec.dataset.privacy_unit
    if unit is None:
        return "one row"
    whole = f"all rows that share a value of {unit.column!r}; at most {unit.max_rows} of them count"
    return {
        "rows": f"{whole}, each as a whole row",
        "weight": f"{whole}, together as one row",
        "mean": f"{whole}, as one row: their mean",
    }[unit.aggregate]


def estimated(spec: ReleaseSpec) -> str:
    """Of which distribution the release is an estimate."""
    unit = spec.dataset.privacy_unit
    if unit is None:
        return "the density of rows"
    of = f"of the at most {unit.max_rows} rows kept of a unit"
    return {
        "rows": f"the density of rows, {of}: units weigh by their number of rows, up to that",
        "weight": f"the density of a random row {of}, every unit weighing the same",
        "mean": f"the density of unit means: of the mean {of} that have its commonest label",
    }[unit.aggregate]
