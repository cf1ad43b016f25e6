"""PRIVATE, on workers: Parquet source, feature lattice, privacy units."""
