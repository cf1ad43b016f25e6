"""Columns of a table: bounds, marginals, categories and missing values, around the mixture.

docs/tables.md.
"""
