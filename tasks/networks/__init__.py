"""Inner networks."""
