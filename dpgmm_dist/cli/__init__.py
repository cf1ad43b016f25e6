"""The ``dpgmm`` command: its options, its output and its exit codes."""
