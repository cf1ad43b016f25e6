"""Files and object stores: create-only objects, Parquet files, scratch space. Reads no rows."""
