"""Encoding: records to token ids, and the cache of the result."""
