"""Random draws of a forward pass as pure functions of a key."""
