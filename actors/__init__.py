"""One stateful class per stage, thin: load the weights, call the library. Placed by Ray Serve, Ray Data or Ray Train."""
