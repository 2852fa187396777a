"""What inner steps, layers and deployed steps cost."""
