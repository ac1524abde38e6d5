"""The service under load: what the graph costs beside the library, many clients at once, placements, memory."""
