"""Several processes: strategies, collectives and model loading."""
