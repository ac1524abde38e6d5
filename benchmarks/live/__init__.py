"""Live conversion: its cost, its delay through the real service, and how it stands hours and abuse."""
