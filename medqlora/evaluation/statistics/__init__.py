"""Statistics: intervals, paired tests, several runs together."""
