"""THE inner loop, and when its chains restart."""
