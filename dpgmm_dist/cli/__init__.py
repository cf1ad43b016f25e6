"""The ``dpgmm`` command: what people type, and what it prints."""
