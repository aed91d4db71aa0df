"""Turns original files into Parquet shards."""
