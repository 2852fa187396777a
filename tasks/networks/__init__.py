"""Inner networks: what tasks train, one file for each kind."""
