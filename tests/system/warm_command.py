"""Builds the parser of the command when it is imported: the fork server does so, once for all."""

from __future__ import annotations

from dpgmm_dist.cli.main import command

command()
