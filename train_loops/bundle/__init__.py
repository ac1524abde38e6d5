"""Makes the bundle voice: data, training, evaluation. See docs/bundle.md."""
