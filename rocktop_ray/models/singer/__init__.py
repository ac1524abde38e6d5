"""The project's own small voice."""
