"""Interprets the columns of data files: maps rows in many layouts to records."""

from medqlora.data.shapes.columns import FIELDS, find, is_tell_tale
from medqlora.data.shapes.labels import Labels
from medqlora.data.shapes.table import Table

__all__ = ["FIELDS", "Labels", "Table", "find", "is_tell_tale"]
