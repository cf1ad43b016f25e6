"""What each step of a release measures, in plain words."""

from __future__ import annotations

_STEPS = {
    "bounds.norm": "the largest length of rows",
    "bounds.center": "the middle of the rows",
    "bounds.columns": "the range of each column",
    "marginals.first": "where the values of each column are",
    "marginals": "the distribution of each column",
    "moments.centre": "the mean, the spread and the number of rows",
    "moments.sum": "numbers of rows and means",
    "moments.second": "one covariance of all rows",
    "moments.label": "means again, and covariances of labels",
    "subspace": "means and covariances of labels in a few directions",
    "cells": "a coarse map of where rows are",
    "components": "weights, means and covariances of components",
}


def step_words(step: str) -> str:
    """What a step of a release measures, in plain words."""
    name, _, index = step.rpartition(".")
    if step in _STEPS:
        return _STEPS[step]
    if name in _STEPS and index.isdigit():
        return f"{_STEPS[name]}, pass {index}"
    return step
