"""Errors with messages for users, each with the exit code of the command.

A message says what is wrong, shows the value if it is public, and says what to do next.
"""

from __future__ import annotations


class DpgmmError(Exception):
    """Base of every deliberate error; ``exit_code`` is the exit code of the command."""

    exit_code = 1


class SpecError(DpgmmError):
    """The specification, or a use of the library, is wrong (exit code 2)."""

    exit_code = 2


class LedgerRefused(DpgmmError):
    """The ledger does not allow the charge (exit code 3)."""

    exit_code = 3


class DataError(DpgmmError):
    """Data or storage cannot be used, or a release is damaged (exit code 4)."""

    exit_code = 4


class ClusterError(DpgmmError):
    """Workers or the cluster failed (exit code 5)."""

    exit_code = 5


class NotPrivateError(DpgmmError):
    """A release is intact, but was made with insecure test noise (exit code 6)."""

    exit_code = 6
