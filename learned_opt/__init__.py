"""Meta-train, compare and use learned optimizers."""
