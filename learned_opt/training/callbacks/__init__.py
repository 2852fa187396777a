"""What happens around outer steps: one Lightning callback in each file."""
