"""Update rules of hand-designed optimizers: what they do to one parameter."""
