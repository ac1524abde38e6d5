"""The voice that ships with the project: weights, retrieval index, model card. ``open_voice("bundle")`` opens it."""
