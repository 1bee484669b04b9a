"""Lightning's side of a run, which module, datamodule and callbacks share: hooks, start of a stage, checks."""
