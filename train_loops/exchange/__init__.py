"""Gradients, state and shares of work between the workers of one training run, of any vendor."""
