"""Inner problems: what the networks are, what they are trained on. Imports nothing from learned_opt."""
