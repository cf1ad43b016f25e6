"""PRIVATE, on workers: the kernel that assigns, maps, clips and accumulates."""
