"""Trained optimizers outside of meta-training."""
