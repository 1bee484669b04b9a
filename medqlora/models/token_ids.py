"""Check that a base's embedding has a row for every token of the examples."""

import itertools
from collections.abc import Iterable

from medqlora.errors import InputError
from medqlora.models.backend import Backend
from medqlora.records import Encoded


def check_token_ids(backend: Backend, examples: Iterable[Encoded]) -> None:
    """Raises InputError for an example with a token that has no row in the base's embedding.

    Args:
        backend: the base's.
        examples: all that the model will read.
    """
    tokenizer, config = backend.tokenizer(), backend.config()
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is None or len(tokenizer) <= rows:  # the usual case
        return
    for example in examples:
        label_ids = itertools.chain.from_iterable(example.labels)
        largest = max(itertools.chain(example.prompt, example.completion, label_ids), default=0)
        if largest >= rows:
            token = tokenizer.convert_ids_to_tokens(int(largest))
            raise InputError(
                f"{example.id}: holds the token {token!r} ({largest}), for which the embedding of '{backend.base}' has "
                f"no row (it has {rows:,}): take the base whose embedding was resized for it, or a --data.prompt or "
                "text without it"
            )
