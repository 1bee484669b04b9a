"""Parsing: the decision that a generated text states."""
