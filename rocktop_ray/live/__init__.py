"""Live conversion: streaming stages with explicit state, and the converter that puts them together."""
