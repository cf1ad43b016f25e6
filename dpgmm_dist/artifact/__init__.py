"""PUBLIC: the release on disk. How it is written, read, verified, reported and sampled from."""
