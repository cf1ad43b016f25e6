"""A joint fit of components: cells, initialisation, and one fit to all noisy moments.

Passes measure cells of the rows, then components. What they measured is explained by one mixture,
by least squares on all of it. docs/method.md, section 3.
"""
