"""Meta-training of theta, with Lightning."""
