"""Datasets for training: a folder of recordings in, content-addressed Parquet files, a manifest and a report out."""
