"""Reports: files, pages, plots and terminal tables."""
