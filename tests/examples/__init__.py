"""How to use a learned optimizer: ``python -m tests.examples.digits``, ``lightning_digits``, ``text``."""
