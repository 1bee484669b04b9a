"""What the columns of a file's rows mean, in the forms that people have them."""

from medqlora.data.shapes.columns import OURS, find, is_tell_tale
from medqlora.data.shapes.labels import Labels
from medqlora.data.shapes.table import Table

__all__ = ["OURS", "Labels", "Table", "find", "is_tell_tale"]
