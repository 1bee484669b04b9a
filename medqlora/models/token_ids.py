"""Token ids against the rows of a base's embedding."""

import itertools
from collections.abc import Iterable
from typing import Any

from medqlora.errors import InputError
from medqlora.records import Encoded


def check_token_ids(backend: Any, examples: Iterable[Encoded]) -> None:
    """Raises InputError for an example with a token that the base's embedding has no row for.

    Args:
        backend: the base's.
        examples: all that the model is to be given.
    """
    tokenizer, config = backend.tokenizer(), backend.config()
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is None or len(tokenizer) <= rows:  # as nearly always: nothing is to be looked through
        return
    for example in examples:
        ends = itertools.chain.from_iterable(example.labels)
        worst = max(itertools.chain(example.prompt, example.completion, ends), default=0)
        if worst >= rows:
            token = tokenizer.convert_ids_to_tokens(int(worst))
            raise InputError(
                f"{example.id}: holds the token {token!r} ({worst}), for which the embedding of '{backend.base}' has "
                f"no row (it has {rows:,}): take the base whose embedding was resized for it, or a --data.prompt or "
                "text without it"
            )
