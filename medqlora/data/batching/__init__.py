"""Batching: encoded examples to micro-batches and loaders."""
