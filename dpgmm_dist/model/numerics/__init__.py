"""Arithmetic that gives the same bits on every machine, and loops over all cores."""
