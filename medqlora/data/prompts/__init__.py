"""Prompts: how a record is put to a model."""
