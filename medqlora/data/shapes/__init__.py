"""Interprets the columns of data files: maps rows in many layouts to records."""

from medqlora.data.shapes.columns import OURS, find, is_tell_tale
from medqlora.data.shapes.labels import Labels
from medqlora.data.shapes.table import Table

__all__ = ["OURS", "Labels", "Table", "find", "is_tell_tale"]
