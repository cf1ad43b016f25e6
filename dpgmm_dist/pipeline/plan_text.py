"""A plan as text for people: what is measured, and what loss to expect."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dpgmm_dist.artifact.step_words import step_words
from dpgmm_dist.pipeline.outlook import Outlook
from dpgmm_dist.pipeline.plan import ASSUMED_ROWS, Plan, PlannedBlock, chooses_components

_ACCOUNTS = {"gdp": "mu^2/2, Gaussian DP", "zcdp": "zCDP"}
_OF = {"sum": "each mean", "second": "each variance", "square": "the mean squared length"}
_POWERS = {"sum": "", "second": " squared", "square": " squared"}


def render_plan(planned: Plan) -> str:
    """The plan as text to print."""
    lines = [
        f"epsilon {planned.epsilon:g}, delta {planned.delta:g}: rho {planned.rho:.6g} "
        f"({_ACCOUNTS[planned.accounting]}; nothing is read or spent)",
        "",
        *_steps(planned),
        "",
        *_verdict(planned),
        "",
        *_buys(planned.outlooks),
        *_wanted(planned),
    ]
    return "\n".join(lines)


def _steps(planned: Plan) -> list[str]:
    """Each pass in words, and each of its statistics with radius and noise."""
    rows = planned.rows or ASSUMED_ROWS
    lines = []
    for step, blocks in groupby(planned.blocks, key=lambda block: block.step):
        of_step = list(blocks)
        share = sum(block.rho for block in of_step) / planned.rho
        lines.append(f"{step:<15} {share:>6.1%}  {step_words(step)}")
        lines += [f"{'':<24}{_block_words(block, rows)}" for block in of_step]
    return lines


def _block_words(block: PlannedBlock, rows: int) -> str:
    """One statistic: of how many groups, clipped where, with which noise."""
    groups = "" if block.groups == 1 else f" of {block.groups} groups"
    if block.statistic in ("count", "bins"):
        kind = "counts of bins" if block.statistic == "bins" else "count"
        return f"{kind}{groups}: noise {block.noise:.3g} rows"
    error = block.noise * block.groups / rows
    return (
        f"{block.statistic}{groups} in {block.dimension} dimensions: clipped at {block.radius:.3g} "
        f"{block.unit}, noise {block.noise:.3g}, or {error:.3g} in {_OF[block.statistic]}"
        f"{_POWERS[block.statistic] and ' (' + block.unit + _POWERS[block.statistic] + ')'}"
    )


def _verdict(planned: Plan) -> list[str]:
    """What the noise costs and what it allows, with warnings."""
    if planned.rows is None:
        lines = [
            f"The plan assumes {ASSUMED_ROWS:,} rows; give --rows N for your own guess and the KL."
        ]
    else:
        level = planned.notes.get("second_moments")
        lines = [f"For {planned.rows:,} rows: {_kl_words(planned)}second moments per {level}."]
    lines += _staged_lines(planned)
    rule = planned.notes.get("rows_per_component")
    if rule is not None and rule["expected"] < rule["needed"]:
        lines.append(
            f"Warning: about {rule['expected']:,.0f} rows a component, but a covariance of its own "
            f"needs about {rule['needed']:,.0f} (docs/method.md, section 4). Components will "
            "mostly share one covariance: use fewer components or dimensions, or a larger epsilon."
        )
    apart = planned.notes.get("components_told_apart")
    if planned.rows is not None and apart is not None:
        lines.append(
            f"Warning: the noise allows {max(apart)} component(s) of a label, fewer than were "
            "asked for. These are divided into that many, which changes no density."
        )
    return lines


def _kl_words(planned: Plan) -> str:
    """The expected KL of the last pass, where components are fitted."""
    known = [block.expected_kl for block in planned.blocks if block.expected_kl is not None]
    if not known:
        return ""
    if chooses_components(planned.notes):
        return f"expected KL of the noise up to {planned.outlooks[0].loss:.3g} nats; "
    return f"expected KL of the noise {sum(known):.3g} nats; "


def _staged_lines(planned: Plan) -> list[str]:
    """What the noise allows, what it costs, and what would change that, in words."""
    notes, rows = planned.notes, planned.rows or ASSUMED_ROWS
    afforded = f"What {rows:,} rows afford: {notes['structure']}."
    if "expected_loss" not in notes:
        return [afforded]
    return [
        afforded,
        f"Expected loss {notes['expected_loss']:.3g} nats a row against the same model without "
        "noise, for rows whose variances along their axes fall as 1, 1/2, 1/3, ...",
        f"A joint fit of components needs about {notes['rows_for_components']:,.0f} rows; a "
        "larger epsilon, fewer labels or fewer dimensions lower that number.",
    ]


def _buys(outlooks: Sequence[Outlook]) -> list[str]:
    """The table of the effects of changes of the specification."""
    lines = [
        "What the noise is expected to cost in nats a row, and what would lower it:",
        f"  {'change':<28}{'epsilon':>8}{'rows':>13}{'dim':>6}{'loss':>10}  what it affords",
    ]
    lines += [
        f"  {outlook.change:<28}{outlook.epsilon:>8.3g}{outlook.rows:>13,}{outlook.dimension:>6}"
        f"{outlook.loss:>10.3g}  {outlook.structure}"
        for outlook in outlooks
    ]
    if any("dimensions" in outlook.change for outlook in outlooks):
        lines.append("  What fewer dimensions leave out is not counted as a loss.")
    return lines


def _wanted(planned: Plan) -> list[str]:
    """The settings that reach the loss that was asked for."""
    want, rows = planned.want, planned.rows or ASSUMED_ROWS
    if want is None:
        return []
    at = f"A loss of {want.loss:g} nats a row"
    by_epsilon = (
        f"{at} takes about epsilon {want.epsilon:.3g} with {rows:,} rows"
        if want.epsilon is not None
        else f"{at} is not reached by any epsilon up to 256 with {rows:,} rows"
    )
    by_rows = (
        f"or about {want.rows:,} rows at epsilon {planned.epsilon:g}."
        if want.rows is not None
        else "nor by more rows: use fewer dimensions, labels or components."
    )
    return ["", f"{by_epsilon}, {by_rows}"]
