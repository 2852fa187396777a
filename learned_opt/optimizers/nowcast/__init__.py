"""Nowcasting: networks that predict later weights of a training from snapshots of it."""
