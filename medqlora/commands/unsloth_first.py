"""Unsloth patches transformers, PEFT and Lightning: it is imported before them, and only when a run uses it."""

from collections.abc import Sequence

from medqlora.config.backends import WITHOUT_UNSLOTH
from medqlora.config.words import named_backend


def import_unsloth_if_named(words: Sequence[str]) -> None:
    """Imports Unsloth when the options, or the last configuration that names a backend, name it.

    Raises:
        InputError: it is not installed or has no GPU; or a configuration can't be parsed.
    """
    named = named_backend(words)
    kind = "" if named is None else named.rsplit(".", 1)[-1]
    if kind in WITHOUT_UNSLOTH:
        from medqlora.models.unsloth import import_unsloth

        import_unsloth(kind)
