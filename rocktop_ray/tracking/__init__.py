"""Training runs and voices in MLflow: where they are kept, writing them down, the registry. See docs/tracking.md."""
