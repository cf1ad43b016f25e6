"""TRUSTED side: needs the data; every output is marked NOT PRIVATE."""

from dpgmm_dist.evaluate.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
