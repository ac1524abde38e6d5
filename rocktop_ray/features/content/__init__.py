"""Content encoders: what is sung, without who sings. Build one with ``registry.build_content_encoder``."""
