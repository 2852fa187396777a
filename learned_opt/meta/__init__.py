"""Meta-training: the inner loop, gradient estimators, the trainer."""
