"""Recordings in and out: decode, encode, resample, level, slice."""
