"""Messages and names that the HTTP side and the engines share."""

from collections.abc import Iterable


def unknown_model(name: str, served: Iterable[str]) -> str:
    """The message for a model that is not served."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name[:80])
    return f"the model {shown!r} is not served: choose one of {', '.join(served)}"
