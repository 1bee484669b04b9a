"""Metrics: predictions to scores."""
