"""Estimators of the gradient of the meta-loss with respect to theta."""
