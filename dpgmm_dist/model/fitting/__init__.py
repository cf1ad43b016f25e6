"""A joint fit of components: cells, initialisation, and one fit to all noisy moments.

Passes measure cells of the rows, then components. One mixture is fitted to all these measurements
by least squares. docs/method.md, section 3.
"""
