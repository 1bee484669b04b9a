"""Sources: a file a dataset, each with one registered subclass of `Source`."""

from medqlora.data.sources.source import SOURCES, Source, source_names

__all__ = ["SOURCES", "Source", "source_names"]
