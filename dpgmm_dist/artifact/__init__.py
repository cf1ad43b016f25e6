"""PUBLIC: the release on disk - write, read, verify, receipt, sampled rows."""
