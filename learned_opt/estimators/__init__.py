"""Estimators of the meta-gradient, and the populations of chains that they run."""
