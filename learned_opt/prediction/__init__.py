"""Weight-space prediction: a zoo of trained networks, and predictors of their success from their weights alone."""
