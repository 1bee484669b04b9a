"""Data sources: where records come from, one file a data set."""
