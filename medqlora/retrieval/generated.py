"""Invented PubMed records, to measure an index at a size that no test file has.

The words follow Zipf's law, as those of a language do: the common words of English, then invented names. Each record
has one name that occurs in its title and its abstract alone, so that a question for it has one right answer.
"""

import gzip
import random
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

_COMMON_TEXT = (
    "the of and in to a with for was were by on patients that is as from than at be or this are not study an after "
    "between group these treatment which results had clinical during significantly using both may compared higher "
    "disease risk all associated analysis who effect data cells increased among used has levels however more time high "
    "age have two groups no also years control one its can first lower rate women men children blood outcome trial "
    "mortality dose therapy response factors cancer pain pressure incidence survival infection measured expression "
    "activity function protein gene human serum randomized placebo baseline mean months weeks score quality care"
)
_COMMON = tuple(_COMMON_TEXT.split())
_SYLLABLES = [first + vowel + last for first in "bdfgklmnprstvz" for vowel in "aeiou" for last in "lnrstx"]
_HEADINGS = ("Humans", "Animals", "Adult", "Female", "Male", "Aged", "Neoplasms", "Pain", "Asthma", "Mice")
_LABELS = ("BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS")
#: invented words beside the common ones
_NAMES = 30_000
_FIRST_PMID = 90_000_000


class GeneratedQuery(NamedTuple):
    """A question, and the PMID of the record that it asks for."""

    text: str
    pmid: str


def write_records(path: Path, count: int, seed: int = 0, words: int = 180) -> None:
    """Writes `count` records as a gzipped PubmedArticleSet; the same arguments give the same records.

    Args:
        path: the file.
        count: records.
        seed: another seed gives other texts.
        words: words of an abstract, about.
    """
    vocabulary = _Vocabulary(seed)
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<PubmedArticleSet>\n')
        for number in range(count):
            file.write(_article(number, *vocabulary.record(number, words)))
        file.write("</PubmedArticleSet>\n")


def queries(count: int, records: int, seed: int = 0, words: int = 180) -> list[GeneratedQuery]:
    """Questions for `count` of the records that `write_records` writes, evenly spread."""
    vocabulary = _Vocabulary(seed)
    asked = []
    for number in range(0, records, max(1, records // count)):
        title, sections, rng = vocabulary.record(number, words)
        some = " ".join(rng.sample(sections[2].split(), 6))
        text = f"Does {title.split()[0]} change the {some} of patients with {title.split()[-1]}?"
        asked.append(GeneratedQuery(text, str(_FIRST_PMID + number)))
    return asked[:count]


class _Vocabulary:
    """The words of the records, by Zipf's law."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        rng = random.Random(f"{seed}/vocabulary")
        names = ["".join(rng.choices(_SYLLABLES, k=rng.choice((2, 3)))) for _ in range(_NAMES)]
        self._words = [*_COMMON, *dict.fromkeys(names)]
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(len(self._words))))

    def record(self, number: int, words: int) -> tuple[str, list[str], random.Random]:
        """Title, the text of each section, and the record's own generator."""
        own = random.Random(f"{self._seed}/{number}")
        name = f"{''.join(own.choices(_SYLLABLES, k=3))}{number}"
        drawn = own.choices(self._words, cum_weights=self._weights, k=words + 8)
        quarter = words // 4
        parts = [drawn[start : start + quarter] for start in range(0, quarter * 4, quarter)]
        parts[2][quarter // 2] = name
        title = f"{name.capitalize()} {' '.join(drawn[words:])}"
        return title, [f"{' '.join(part).capitalize()}." for part in parts], own


def _article(number: int, title: str, sections: list[str], rng: random.Random) -> str:
    pmid, year = _FIRST_PMID + number, rng.randint(1975, 2025)
    abstract = "".join(
        f'<AbstractText Label="{label}">{text}</AbstractText>'
        for label, text in zip(_LABELS, sections, strict=True)
    )
    mesh = "".join(
        f"<MeshHeading><DescriptorName>{heading}</DescriptorName></MeshHeading>"
        for heading in rng.sample(_HEADINGS, 4)
    )
    return (
        f'<PubmedArticle><MedlineCitation><PMID Version="1">{pmid}</PMID><Article><Journal><JournalIssue><PubDate>'
        f"<Year>{year}</Year></PubDate></JournalIssue><Title>Invented Journal</Title></Journal>"
        f"<ArticleTitle>{title}.</ArticleTitle><Abstract>{abstract}</Abstract><PublicationTypeList>"
        f"<PublicationType>Journal Article</PublicationType></PublicationTypeList></Article><MeshHeadingList>{mesh}"
        f"</MeshHeadingList></MedlineCitation><PubmedData><ArticleIdList>"
        f'<ArticleId IdType="doi">10.9999/{pmid}</ArticleId></ArticleIdList></PubmedData></PubmedArticle>\n'
    )
