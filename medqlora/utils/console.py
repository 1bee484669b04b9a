"""Lines for the person at the terminal."""

from lightning.pytorch.utilities import rank_zero_only

from medqlora.utils.terminal import printable


@rank_zero_only
def say(line: str) -> None:
    """Prints on the first process alone; at once, also into a pipe."""
    print(printable(line), flush=True)
