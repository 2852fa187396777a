"""What optimizers cost: time, memory, compilation, how they grow, and the floor below which they cannot go."""
