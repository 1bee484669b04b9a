"""Small services that every room may use: files, caches, memory, terminal output."""
