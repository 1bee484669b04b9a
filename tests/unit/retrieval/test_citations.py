"""Sources of an answer: the markers that name them, and that no other source is ever named."""

import pytest

from medqlora.inference import Answer
from medqlora.retrieval.citations import REMOVED, checked_rationale, cited_answer
from medqlora.retrieval.search import Hit
from medqlora.retrieval.store import Found
from medqlora.retrieval.wording import reference


def passage(pmid: str, title: str = "A title", doi: str = "", *, retracted: bool = False) -> Found:
    return Found(
        1,
        f"pmid:{pmid}",
        pmid,
        "PubMed",
        title,
        pmid,
        "",
        doi,
        "",
        2001,
        "",
        retracted,
        False,
        "ABSTRACT",
        "T.",
        0,
        2,
        (),
    )


GIVEN = [passage("123456", doi="10.1000/abc"), passage("234567")]


@pytest.mark.parametrize(
    ("text", "shown", "cited", "removed"),
    [
        ("It helps [1] and [2].", "It helps [1] and [2].", (1, 2), 0),
        ("It helps [1, 2][1-2].", "It helps [1, 2][1-2].", (1, 2), 0),
        ("It helps [3].", f"It helps {REMOVED}.", (), 1),
        ("It helps [2, 7].", "It helps [2].", (2,), 1),
        ("As in PMID 123456 and PMID: 999999.", f"As in PMID 123456 and {REMOVED}.", (), 1),
        ("See 10.1000/abc, doi:10.1000/xyz.", f"See 10.1000/abc, {REMOVED}", (), 1),
        ("See https://pubmed.ncbi.nlm.nih.gov/123456/", "See https://pubmed.ncbi.nlm.nih.gov/123456/", (), 0),
        ("See http://evil.example/x or www.a.b", f"See {REMOVED} or {REMOVED}", (), 2),
        ("So (Smith et al., 2019) and Jones et al. (2020) say.", f"So {REMOVED} and {REMOVED} say.", (), 2),
        ("PMC123456 shows it.", f"{REMOVED} shows it.", (), 1),
        (
            "In 1998 the ratio was 0.5 [0.2, 0.9] in 12 (10%).",
            "In 1998 the ratio was 0.5 [0.2, 0.9] in 12 (10%).",
            (),
            0,
        ),
        ("No source at all.", "No source at all.", (), 0),
    ],
)
def test_a_rationale_names_no_source_that_was_not_given(
    text: str, shown: str, cited: tuple[int, ...], removed: int
) -> None:
    found, numbers, taken_out = checked_rationale(text, GIVEN)
    assert (found, numbers, len(taken_out)) == (shown, cited, removed)


def test_the_json_of_an_answer_carries_its_sources_and_the_text_only_the_given_ones() -> None:
    answer = Answer("q", "Q?", "answer", decision="yes", caution="none", rationale="Yes [2], [9].")
    found = cited_answer(answer, [Hit(one, 1.0, 1.0) for one in GIVEN]).to_json()
    assert [(one["number"], one["pmid"], one["cited"]) for one in found["sources"]] == [  # type: ignore[union-attr,index,call-overload]
        (1, "123456", False),
        (2, "234567", True),
    ]
    assert found["removed_sources"] == ["[9]"]
    assert "[9]" not in str(found["text"])
    assert found["rationale"] == f"Yes [2], {REMOVED}."


def test_a_reference_is_one_harmless_line_with_its_marks() -> None:
    line = reference(passage("1", "A\nnew \x1b[31mline \u202e", retracted=True))
    assert line == (
        "A new \\x1b[31mline \\u202e (2001), PMID 1, ABSTRACT, https://pubmed.ncbi.nlm.nih.gov/1/; RETRACTED"
    )
