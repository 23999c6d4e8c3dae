"""Readings as Parquet and the queries over them. duckdb and fsspec are loaded by the first use, never at start."""
