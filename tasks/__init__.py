"""Inner problems: networks, and what they are trained on; imports nothing from learned_opt."""
