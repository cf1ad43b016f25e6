"""``python -m dpgmm_dist.cli``: the command without its script."""

from dpgmm_dist.cli.main import main

main()
