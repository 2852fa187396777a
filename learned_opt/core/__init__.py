"""Foundations: trees, random numbers, compiled functions, native code, files, errors."""
