"""TRUSTED side: needs the data; every output is marked NOT PRIVATE."""
