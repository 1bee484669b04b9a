"""A tokenized set of test questions."""

from collections.abc import Mapping
from typing import NamedTuple

from medqlora.data.prompts import Prompt
from medqlora.data.sample import Sample
from medqlora.data.sources.source import Source
from medqlora.records import Encoded, Record


class QuestionSet(NamedTuple):
    """A set of questions that `test` evaluates.

    Attributes:
        source: the source of the questions.
        prompt: their prompt.
        records: id → record, of `test` and `dev`.
        test: the questions.
        dev: questions that the adapter did not learn, for the temperature; may be empty.
        content_free: the prompt with an empty question, for the labels' prior; None where the questions have
            different labels, or none.
        sample: what `test` is a sample of; None where it is all.
    """

    source: Source
    prompt: Prompt
    records: Mapping[str, Record]
    test: list[Encoded]
    dev: list[Encoded]
    content_free: Encoded | None
    sample: Sample | None = None
