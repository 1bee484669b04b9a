"""Exports for other runtimes: written beside the output, compared with the live model, and only then put in place."""
