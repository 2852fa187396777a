"""Code that lies outside of learned_opt; configs name it by ``_target_``."""
