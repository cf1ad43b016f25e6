"""Errors that people read, each with the exit code the command line documents.

Messages say what was wrong, the value (public values only) and what to do next.
"""

from __future__ import annotations


class DpgmmError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command exits with."""

    exit_code = 1


class SpecError(DpgmmError):
    """The specification or the usage is wrong (exit code 2)."""

    exit_code = 2


class LedgerRefused(DpgmmError):
    """The ledger does not allow the charge (exit code 3)."""

    exit_code = 3


class DataError(DpgmmError):
    """Data or storage cannot be used, or a release is not intact (exit code 4)."""

    exit_code = 4


class ClusterError(DpgmmError):
    """Workers or the cluster failed (exit code 5)."""

    exit_code = 5


class NotPrivateError(DpgmmError):
    """A release is intact but was made with insecure test noise (exit code 6)."""

    exit_code = 6
