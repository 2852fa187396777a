"""Weight-space prediction: a zoo of networks, and predictors of their success."""
