"""Reads the files of an index: PubMed and JATS XML, tables, PubMedQA, text, Markdown and PDF."""

from medqlora.retrieval.reading.files import Fields, SourceFile, read_entries, source_files

__all__ = ["Fields", "SourceFile", "read_entries", "source_files"]
