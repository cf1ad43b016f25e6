"""TRUSTED side: measures a release against real rows. Every output is marked NOT PRIVATE."""

from dpgmm_dist.evaluate.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
