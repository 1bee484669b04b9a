"""Checks that run before the first training step."""
