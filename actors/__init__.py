"""One thin class per stage: place it (``ray.remote``, a Serve deployment, a process), load it, call the library."""
