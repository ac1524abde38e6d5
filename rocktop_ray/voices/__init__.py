"""Voices as files: the formats, safe loading, and the library."""
