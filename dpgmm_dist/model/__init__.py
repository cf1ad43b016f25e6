"""PUBLIC: everything computed from released or noisy numbers alone (numpy and scipy only)."""
