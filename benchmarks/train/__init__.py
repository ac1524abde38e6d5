"""Speed of preparing data and of training; see benchmarks/README.md."""
