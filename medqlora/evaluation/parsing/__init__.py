"""Parsing: the decision in a generated text."""
