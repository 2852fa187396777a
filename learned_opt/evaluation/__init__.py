"""Comparing optimizers on held-out seeds."""
