"""Composed configs to objects; the only place that knows OmegaConf and ``instantiate``."""
