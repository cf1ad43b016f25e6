"""Stages of a release where noise is as large as the signal: each asks once and keeps what pays.

In order: `centre`, `label_means`, `pooled_covariance`, `second_look` (with `label_covariances`).
"""
