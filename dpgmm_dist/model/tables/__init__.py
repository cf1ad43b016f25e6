"""Columns of a table: bounds, marginals, categories and missing values, around the mixture.

docs/method.md, section 1.1.
"""
