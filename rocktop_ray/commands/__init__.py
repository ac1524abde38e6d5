"""The sub-commands of rocktop, one module each. Heavy imports stay inside the functions, so that --help is quick."""
