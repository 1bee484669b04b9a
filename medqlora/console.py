"""Lines for the person at the terminal."""

from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def say(line: str) -> None:
    """Prints on the first process alone; at once, also into a pipe."""
    print(line, flush=True)
