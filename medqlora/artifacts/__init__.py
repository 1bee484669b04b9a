"""What runs leave on disk: run folders, checkpoints and adapter folders."""
