"""Singing-voice conversion and synthesis: the library. See docs/design.md."""

__version__ = "0.1.0"
