"""What replaces the contexts of a run's questions; `medqlora.retrieval` has the one that reads an index."""

from collections.abc import Callable, Sequence
from typing import Protocol

from medqlora.data.prompts import Prompt
from medqlora.data.question_set import WithRetrieval
from medqlora.records import Encoded, Record
from medqlora.utils.types import Tokenizer


class Retrieval(Protocol):
    """Gives questions their contexts.

    Attributes:
        held_out: ids of test questions, whose articles no question may get.
    """

    held_out: set[str]

    def contexts(self, records: Sequence[Record], report: Callable[[str], None]) -> list[Record]:
        """The records with retrieved contexts, in their order.

        Raises:
            InputError: the index is damaged.
        """

    def of_set(
        self, test: Sequence[Encoded], prompt: Prompt, tokenizer: Tokenizer, max_prompt_tokens: int
    ) -> WithRetrieval:
        """What the report on these test questions compares their contexts with."""
