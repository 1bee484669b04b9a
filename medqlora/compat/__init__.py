"""Uses of other libraries' private parts, one file a library."""
