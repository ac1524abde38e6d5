"""Objective audio metrics."""
