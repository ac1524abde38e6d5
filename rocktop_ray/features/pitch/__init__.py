"""F0 of a take: extractors (``registry``) and arithmetic on the curve (``curves``)."""
