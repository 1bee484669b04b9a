"""The options under `--data.retrieval.`: contexts from an index of literature."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medqlora.errors import InputError

#: passages for a question
MOST = 1000
_YEARS = re.compile(r"\s*(\d{4})?\s*(-?)\s*(\d{4})?\s*")


@dataclass(frozen=True)
class RetrievalOptions:
    """Contexts from an index, in place of the questions' own.

    Args:
        index: an index of `medqlora index build`, or the description (.yaml) of one on a server; each question then
            gets its contexts from it. Null retrieves nothing.
        k: passages for a question.
        max_tokens: tokens of the passages together; the first passage is always taken. Null leaves it to
            `max_prompt_tokens`.
        ranking: "words" is BM25, "vectors" the similarity of embeddings, "both" their fusion; "auto" takes both where
            the index has vectors.
        reranker: folder of a cross-encoder that orders the best 100 passages anew.
        mesh: only documents with one of these MeSH headings.
        years: only documents of these years, as 2010-2020, 2015- or -1999.
        retracted: also retracted articles.
        animal: also studies of animals alone.
        exclude_source: never give a question its own article, nor any passage that shares 13 words in a row with its
            texts. False lets `test` find the abstract that the question was made from; the report says so in red.
        keep_contexts: put the passages after the question's own contexts instead of replacing them.
        numbered: write [1], [2], … before the passages, for adapters that cite them.
    """

    index: str | None = None
    k: int = 3
    max_tokens: int | None = None
    ranking: Literal["auto", "words", "vectors", "both"] = "auto"
    reranker: str | None = None
    mesh: list[str] | None = None
    years: str | int | None = None
    retracted: bool = False
    animal: bool = True
    exclude_source: bool = True
    keep_contexts: bool = False
    numbered: bool = False

    def check(self) -> None:
        """Raises InputError for values that no index makes right, and for an index that is not there."""
        for option in ("k", "max_tokens"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise InputError(f"--data.retrieval.{option} is {value}: it has to be at least 1")
        if self.k > MOST:
            raise InputError(f"--data.retrieval.k is {self.k}: it has to be at most {MOST}")
        parse_years(self.years, "--data.retrieval.years")
        if self.index is not None and not Path(self.index).expanduser().is_file():
            raise InputError(
                f"--data.retrieval.index: there is no file {self.index}: build it with `medqlora index build`"
            )
        if self.reranker is not None and not (Path(self.reranker).expanduser() / "config.json").is_file():
            raise InputError(
                f"--data.retrieval.reranker {self.reranker}: no folder with a model (config.json)"
            )


def parse_years(text: str | int | None, option: str) -> tuple[int | None, int | None]:
    """The first and the last year of "2010-2020", "2015-", "-1999" or "2012"; None for an open end.

    Raises:
        InputError: the text is none of these.
    """
    if text is None:
        return None, None
    match = _YEARS.fullmatch(str(text))
    first, dash, last = match.groups() if match else (None, "", None)
    if not (first or last) or (first and last and not dash):
        raise InputError(f"{option} {text}: write 2010-2020, 2015-, -1999 or 2012")
    years = (int(first) if first else None, int(last) if last else None)
    if not dash:
        return years[0], years[0]
    if years[0] is not None and years[1] is not None and years[0] > years[1]:
        raise InputError(f"{option} {text}: the first year is after the last")
    return years
