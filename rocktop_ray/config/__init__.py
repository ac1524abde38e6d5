"""What a user may set of the long jobs: Hydra groups (YAML) and the typed schema that they must fit."""
