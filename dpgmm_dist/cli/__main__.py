"""Run the ``dpgmm`` command as ``python -m dpgmm_dist.cli``."""

from dpgmm_dist.cli.main import main

main()
