"""The ways from a gateway to the live replicas, and what is done when one of them is silent, leaves or dies."""
