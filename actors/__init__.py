"""One stateful class per stage, thin: load the weights, call the library. Placed by Ray Serve, Data or Train."""
