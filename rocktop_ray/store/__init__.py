"""Files that are kept: the catalogue of known weights and the models folder."""
