"""Indexes that a server holds: a class for each kind, named by its class path in a description file."""
