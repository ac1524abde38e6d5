"""Speed and memory of the pipeline, beside a living peer. See README.md."""
