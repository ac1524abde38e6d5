"""The HTTP face of the system: routes, limits, keys, errors."""
