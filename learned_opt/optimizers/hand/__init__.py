"""Hand-designed optimizers: update rules in the contract of a meta-optimizer."""
