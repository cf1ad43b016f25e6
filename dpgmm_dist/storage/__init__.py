"""Files and object stores: create-only objects, Parquet files, scratch storage. Reads no rows."""
