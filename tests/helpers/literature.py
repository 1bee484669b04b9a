"""Small literature for the tests of indexes: PubMed XML with what real files hold, and rows of trials."""

import json
from collections.abc import Sequence
from pathlib import Path

from medqlora.data.sources.synthetic_trials import SyntheticTrials
from medqlora.errors import InputError
from medqlora.records import Record
from medqlora.retrieval.build import BuildRequest, Built, build_index
from medqlora.retrieval.documents import Entry
from medqlora.retrieval.reading import read_entries, source_files

DOCTYPE = (
    '<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle//EN" "https://dtd.nlm.nih.gov/none.dtd">'
)


def article(
    pmid: int,
    title: str = "A title.",
    abstract: str = "<AbstractText>Some findings.</AbstractText>",
    *,
    version: int = 1,
    year: str = "<Year>2001</Year>",
    types: Sequence[str] = ("Journal Article",),
    mesh: Sequence[str] = (),
    more: str = "",
    of_article: str = "",
) -> str:
    """A PubmedArticle."""
    kinds = "".join(f"<PublicationType>{kind}</PublicationType>" for kind in types)
    headings = "".join(f"<MeshHeading><DescriptorName>{one}</DescriptorName></MeshHeading>" for one in mesh)
    return (
        f'<PubmedArticle><MedlineCitation><PMID Version="{version}">{pmid}</PMID><Article><Journal><JournalIssue>'
        f"<PubDate>{year}</PubDate></JournalIssue><Title>J</Title></Journal><ArticleTitle>{title}</ArticleTitle>"
        f"<Abstract>{abstract}</Abstract>{of_article}<PublicationTypeList>{kinds}</PublicationTypeList></Article>"
        f"<MeshHeadingList>{headings}</MeshHeadingList>{more}</MedlineCitation></PubmedArticle>"
    )


def article_set(path: Path, *articles: str, doctype: str = DOCTYPE) -> Path:
    """A file of PubMed."""
    text = f'<?xml version="1.0" encoding="utf-8"?>\n{doctype}<PubmedArticleSet>{"".join(articles)}</PubmedArticleSet>'
    path.write_text(text, encoding="utf-8")
    return path


def entries(*paths: Path, fields: dict[str, str] | None = None) -> list[Entry]:
    """What the files hold; a bad row raises."""

    def on_bad(error: InputError) -> None:
        raise error

    files = source_files([str(path) for path in paths])
    return [entry for file in files for entry in read_entries(file, fields or {}, on_bad)]


def built(out: Path, *paths: Path, add: bool = False, words: int = 300, skip_bad: bool = False) -> Built:
    """Builds the index `out` of the files."""
    files = source_files([str(path) for path in paths])
    return build_index(BuildRequest(out, files, words=words, skip_bad=skip_bad, add=add))


def trial_rows(path: Path, records: Sequence[Record]) -> Path:
    """The trials' contexts as a document each, without question and answer."""
    rows = [
        {"id": record.id, "contexts": record.contexts, "labels": record.context_labels} for record in records
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def trials(count: int) -> list[Record]:
    """The demo's test questions."""
    return SyntheticTrials(train=1, dev=0, test=count).read().test
