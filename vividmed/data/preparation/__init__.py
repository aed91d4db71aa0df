"""Original files in, Parquet shards with a card out."""
