"""The texts of a report: what was released, its guarantee, and its uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpgmm_dist.artifact.report.page import number

_ACCOUNTING = {
    "gdp": "Gaussian differential privacy (GDP)",
    "zcdp": "zero-concentrated differential privacy (zCDP)",
}


def title(shown: Mapping[str, Any]) -> str:
    """The heading of the report."""
    given = shown["input"]
    names = [column["name"] for column in given["columns"]]
    if given["kind"] == "list":
        return f"Gaussian mixture of {names[0]}"
    return f"Gaussian mixture of a table of {counted(len(names), 'column')}"


def released(shown: Mapping[str, Any]) -> list[str]:
    """What the release is, in two sentences."""
    model = shown["model"]
    per_label = f", one mixture for each of {counted(len(model['labels']), 'label')}"
    text = (
        f"This is a Gaussian mixture of {_input_words(shown['input'])}: "
        f"{counted(model['components'], 'component')}"
        f"{per_label if model['labels'] else ''}, each with a weight, a mean and a covariance."
    )
    dimensions = f"They are described in {counted(model['latent_dimension'], 'dimension')}"
    if model["latent_dimension"] < model["input_columns"]:
        dimensions += (
            f", a projection of {model['input_columns']} numbers a row. In each direction outside "
            f"it, the variance is {model['residual_variance']:.4g}."
        )
    else:
        dimensions += "."
    if "own_axes" in model:
        dimensions += (
            " All covariances share their axes. They differ along the first "
            f"{counted(model['own_axes'], 'axis', 'axes')}."
        )
    return [text, dimensions]


def guarantee_words(guarantee: Mapping[str, Any]) -> list[str]:
    """The guarantee for readers who do not know differential privacy, then its terms."""
    if guarantee["privacy"] != "private":
        return [
            "There is no guarantee. With private noise, the same queries would cost epsilon "
            f"{guarantee['spent_epsilon']:.4g} at delta {guarantee['delta']:g}."
        ]
    epsilon, delta = guarantee["epsilon"], guarantee["delta"]
    return [
        f"This release is ({epsilon:g}, {delta:g})-differentially private, and so is everything "
        "that is computed from it: samples, scores, this page.",
        f"It compares {guarantee['neighbours']}. A privacy unit is {guarantee['unit']}. Whoever "
        "sees the release, and knows everything else, can tell hardly better than before whether "
        "any one unit was among the data: the odds of any conclusion change at most by the factor "
        f"{odds(epsilon)}, up to a probability of {delta:g}.",
    ]


def odds(epsilon: float) -> str:
    """e to the epsilon, to three digits."""
    import math

    return f"{math.exp(epsilon):.3g}" if epsilon < 50 else "e^" + f"{epsilon:g}"


def guarantee_terms(guarantee: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers of the guarantee, by name."""
    replacing = guarantee["replacing_one_unit"]
    ledger = guarantee["ledger"]
    return [
        ("allowed", f"epsilon {guarantee['epsilon']:g} at delta {guarantee['delta']:g}"),
        ("spent by all queries together", f"epsilon {guarantee['spent_epsilon']:.4g}"),
        ("the same as rho", f"{guarantee['spent_rho']:.6g} of {guarantee['budget_rho']:.6g}"),
        ("for replacing one unit", f"epsilon {number(replacing.get('epsilon'))}"),
        ("noise", guarantee["mechanism"].replace("_", " ")),
        ("accounting", _ACCOUNTING[guarantee["accounting"]]),
        ("charged to a ledger", "yes" if ledger else "no: other releases are not counted"),
    ]


def good_for(shown: Mapping[str, Any]) -> list[str]:
    """What may be done with the release."""
    labels = shown["model"]["labels"]
    uses = ["Drawing as many synthetic rows as you like, in the columns and types of the input."]
    if labels:
        uses.append(f"Training a classifier of {counted(len(labels), 'label')} on drawn rows.")
    uses.append("Scoring how usual a row is, by its density.")
    uses.append("Means, spreads and correlations, and how they differ between components.")
    return uses


def limits(shown: Mapping[str, Any]) -> list[str]:
    """What the release does not contain, and what the guarantee leaves out."""
    return [
        "A mixture of Gaussians and nothing else: what it does not describe, such as rare values "
        "or exact copies of rows, is not in the release.",
        "Weights, means and covariances carry noise and are shrunk by it. Error bars are "
        f"{shown['guarantee']['error_bars']}.",
        "Bounds, labels and options of the specification are public. If someone chose them by "
        "looking at rows, that is not accounted for.",
        "The guarantee is for this release. Others of the same people add up with it; a ledger "
        "counts them.",
    ]


def commands() -> str:
    """Three commands that use a release."""
    return (
        "dpgmm verify RELEASE                                  # is it intact, is the cost right?\n"
        "dpgmm sample RELEASE --rows 10000 --output synthetic  # rows as Parquet\n"
        "dpgmm evaluate RELEASE --data REAL                    # trusted side only: compare"
    )


def python_lines(shown: Mapping[str, Any]) -> str:
    """Python that loads a release, draws from it and scores."""
    lines = [
        "from dpgmm_dist import load_release",
        "",
        'release = load_release("RELEASE")',
        "mixture = release.mixture            # weights, means, covariances",
        "X, y = release.sample(10_000, seed=1)",
        "print(release.score_samples(X).mean())",
    ]
    if shown["model"]["labels"]:
        lines += [
            "",
            "from sklearn.linear_model import LogisticRegression",
            "classifier = LogisticRegression(max_iter=1000).fit(X, y)",
        ]
    else:
        lines += ["component = release.responsibilities(X).argmax(axis=1)"]
    return "\n".join(lines)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {plural or noun + 's'}"


def _input_words(given: Mapping[str, Any]) -> str:
    names = [column["name"] for column in given["columns"]]
    if given["kind"] == "list":
        return f"rows of {given['width']} numbers (column {names[0]})"
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    return f"a table of {counted(len(names), 'column')} ({shown})"
