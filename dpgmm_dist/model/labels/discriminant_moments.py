"""Two labels with few rows: one more direction, from the rows that are hardest to classify.

Along the discriminant v found so far, the tail of a label is those of its rows that lie farthest
toward the other label. The sum of one label's tail less the other's says how v should change. For
Gaussian rows it is a combination of ``m_1 - m_0`` and ``S v``: a step of conjugate gradients. For
other rows it describes them near the border between the labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.problem import Ask

Floats = npt.NDArray[np.float64]

_TAIL = -0.52
"""Standard deviations from a label's mean toward the other where its tail begins: 30% of Gaussian
rows. Chosen by cross-validation on training rows of spamassassin_minilm384 (docs/method.md)."""


def tail_difference(
    ask: Ask,
    latent: Latent,
    step: str,
    means: Floats,
    normal: Floats,
    deviations: Floats,
    radius: float,
    rho: float,
) -> tuple[Floats, float]:
    """Sum (p,) of label 1's tail less label 0's, across ``normal``; and the scale of its noise.

    Parameters
    ----------
    ask, latent : answers the query, and its coordinates
    step : name of the pass
    means : (2, p) label means
    normal : (p,) unit vector from label 0 toward label 1, along which tails are defined
    deviations : (2,) standard deviations of the labels along it
    radius : clipping radius about the middle of the means
    rho : budget
    """
    p = means.shape[1]
    toward = np.array([-1.0, 1.0])
    middle = means.mean(axis=0)
    across = middle - (middle @ normal) * normal
    begins = means @ normal + toward * _TAIL * deviations
    # Cells by label: the tail, then the others. They differ along the normal alone.
    label, tail = np.array([0, 0, 1, 1]), np.array([1.0, -1.0, 1.0, -1.0])
    along = begins[label] - toward[label] * tail * deviations[label]
    plan = PassPlan(
        step=step,
        cell_label=label,
        centres=across + along[:, None] * normal,
        radius=radius,
        # The other rows have a sum of their own, which costs nothing, so this sum has only tails.
        blocks=(BlockPlan("sum", np.array([0, 1, 0, 1]), rho),),
        whiten=(-np.eye(p), np.eye(p)),
        cell_map=label,
        rule="nearest",
    )
    answer = ask(plan, latent)
    block = answer.block("sum")
    scale = float(answer.unwhiten[-1][0, 0])
    found = block.values[0] * scale
    return found - (found @ normal) * normal, block.sigma * scale
