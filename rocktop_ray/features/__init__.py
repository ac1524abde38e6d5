"""What the networks are given: content units, F0, retrieved units."""
