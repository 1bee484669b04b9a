"""Claims: how a text is split, how a claim is asked, and how its passages' answers are weighed."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from literature import article, article_set, built

from medqlora.records import Prediction, Record
from medqlora.retrieval.claims import as_question, split_claims
from medqlora.retrieval.retriever import Retriever
from medqlora.retrieval.search import Index
from medqlora.retrieval.verification import Verifier, aggregate

LABELS = ("yes", "no", "maybe")


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("Aspirin helps pain. It is cheap too!", ["Aspirin helps pain.", "It is cheap too!"]),
        ("Aspirin (e.g. 5.2 mg vs. placebo) helps.", ["Aspirin (e.g. 5.2 mg vs. placebo) helps."]),
        ("Dr. A. Smith treated E. coli. It died out.", ["Dr. A. Smith treated E. coli.", "It died out."]),
        ("P was 0.04 [1]. Does it help? It does help.", ["P was 0.04 [1].", "It does help."]),
        (
            "- First of them rose\n2. Second of them fell.\n\nYes.",
            ["First of them rose", "Second of them fell."],
        ),
        ('They wrote "it helps." Others did not agree.', ['They wrote "it helps."', "Others did not agree."]),
        ("", []),
        ("Yes. No.", []),
        ("It rose by 3 ml/min…\r\nIt then fell again", ["It rose by 3 ml/min…", "It then fell again"]),
    ],
)
def test_a_text_is_split_into_its_sentences(text: str, claims: list[str]) -> None:
    found = split_claims(text)
    assert [claim.text for claim in found] == claims
    assert all(text[claim.start : claim.end] == claim.text for claim in found)


@pytest.mark.parametrize(
    ("claim", "question", "negated"),
    [
        ("Aspirin relieves pain.", "Is it true that aspirin relieves pain?", False),
        ("IL-6 rose.", "Is it true that IL-6 rose?", False),
        ("Aspirin does not relieve pain.", "Is it true that aspirin does relieve pain?", True),
        ("It isn’t safe", "Is it true that it is safe?", True),
        ("It cannot help.", "Is it true that it can help?", True),
        ("It had no effect on pain.", "Is it true that it had an effect on pain?", True),
        ("It did no better than placebo.", "Is it true that it did better than placebo?", True),
        ("It did not have no effect.", "Is it true that it did have an effect?", False),
        ("It is not only cheap.", "Is it true that it is not only cheap?", False),
        ("It is no longer used.", "Is it true that it is no longer used?", False),
        ("Does it help?", "Does it help?", False),
    ],
)
def test_a_claim_is_asked_without_its_negation(claim: str, question: str, negated: bool) -> None:
    assert as_question(claim, LABELS) == (question, negated)


def test_an_adapter_that_learned_claims_gets_the_claim() -> None:
    assert as_question("It does not help.", ("SUPPORT", "CONTRADICT", "NEI")) == ("It does not help.", False)


class Reader:
    """Answers from the first passage's words alone: "relieved" is yes, "failed" is no."""

    labels: tuple[str, ...] = LABELS
    calibration = None

    def __init__(self, sure: float = 0.9) -> None:
        self.sure = sure
        self.asked: list[Record] = []

    def score_labels(self, records: Sequence[Record]) -> list[Prediction]:
        self.asked += records
        found = []
        for record in records:
            (text,) = record.contexts
            right = "yes" if "relieved" in text else "no" if "failed" in text else "maybe"
            shares = [self.sure if label == right else (1 - self.sure) / 2 for label in LABELS]
            found.append(Prediction(record.id, None, LABELS, tuple(map(math.log, shares))))
        return found


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    def text(words: str) -> str:
        return f"<AbstractText>{words}</AbstractText>"

    path = article_set(
        tmp_path / "a.xml",
        article(1, "Zalo in belgrosis.", text("Zalo relieved the pain of belgrosis.")),
        article(2, "Drev in belgrosis.", text("Drev failed in the pain of belgrosis.")),
        article(3, "Thamor in lemia.", text("Thamor relieved lemia.")),
        article(4, "Thamor in lemia.", text("Thamor failed in lemia.")),
        article(5, "Plixa in grosis.", text("Plixa relieved grosis."), types=["Retracted Publication"]),
    )
    built(tmp_path / "i.mqi", path)
    opened = Index.open(tmp_path / "i.mqi")
    yield opened
    opened.close()


def test_the_passages_of_other_drugs_decide_nothing(index: Index) -> None:
    verifier = Verifier(Reader(), Retriever(index, k=4))
    one, two, three = verifier.verify(
        "Zalo relieves the pain of belgrosis. Drev relieves the pain of belgrosis. Drev does not relieve belgrosis."
    )
    assert [verdict.verdict for verdict in (one, two, three)] == ["supported", "contradicted", "supported"]
    assert one.confidence == pytest.approx(0.9)
    assert one.passages[0].hit.passage.pmid == "1"
    assert [passage.decides for passage in one.passages if passage.hit.passage.pmid != "1"] == [False] * (
        len(one.passages) - 1
    )
    json = one.to_json()
    assert json["passages"][0]["link"] == "https://pubmed.ncbi.nlm.nih.gov/1/"  # type: ignore[index,call-overload]


def test_passages_that_contradict_each_other_are_a_conflict(index: Index) -> None:
    (verdict,) = Verifier(Reader(), Retriever(index, k=2)).verify("Thamor relieves lemia.")
    assert (verdict.verdict, verdict.conflicting) == ("not enough", True)


def test_a_retracted_article_decides_nothing_even_where_it_is_found(index: Index) -> None:
    from medqlora.retrieval.search import Filters

    retriever = Retriever(index, k=1, filters=Filters(retracted=True))
    (verdict,) = Verifier(Reader(), retriever).verify("Plixa relieves grosis.")
    assert verdict.passages[0].verdict == "supported"
    assert not verdict.passages[0].decides
    assert verdict.verdict == "not enough"


def test_a_claim_without_a_passage_or_with_unsure_ones_has_not_enough(index: Index) -> None:
    (nothing,) = Verifier(Reader(), Retriever(index)).verify("Quux cures warts entirely.")
    assert (nothing.verdict, nothing.confidence, nothing.passages) == ("not enough", 1.0, ())
    (unsure,) = Verifier(Reader(sure=0.45), Retriever(index)).verify("Zalo relieves belgrosis.")
    assert unsure.verdict == "not enough"
    assert aggregate("x", [], []).verdict == "not enough"


def test_an_answer_is_held_against_its_own_sources(index: Index) -> None:
    hits = Retriever(index, k=1).retrieve(Record("q", "Drev in belgrosis?")).hits
    verdicts = Verifier(Reader()).verify_against("The drug helped them all. Nobody was harmed by it.", hits)
    assert [verdict.verdict for verdict in verdicts] == ["contradicted", "contradicted"]


def test_the_labels_of_a_claim_set_are_understood(index: Index) -> None:
    class Checker(Reader):
        labels = ("SUPPORT", "CONTRADICT", "NEI")

        def score_labels(self, records: Sequence[Record]) -> list[Prediction]:
            return [Prediction(one.id, None, self.labels, (-3.0, -0.1, -4.0)) for one in records]

    (verdict,) = Verifier(Checker(), Retriever(index, k=1)).verify("Zalo does not relieve belgrosis.")
    assert verdict.verdict == "contradicted"


def test_a_set_of_claims_is_read_like_any_other_question_set(tmp_path: Path) -> None:
    import json

    from medqlora.data import JSONLines

    rows = [
        {"claim": f"Drug {number} helps.", "evidence": [f"Trial {number} did."], "label": label}
        for number, label in enumerate(("SUPPORT", "CONTRADICT", "NEI"))
    ]
    path = tmp_path / "claims.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    fields = {"question": "claim", "contexts": "evidence", "answer": "label"}
    read = (
        JSONLines(str(path), dev_fraction=0, fields=fields, labels=["SUPPORT", "CONTRADICT", "NEI"])
        .read()
        .train
    )
    assert [(one.question, one.contexts, one.answer) for one in read] == [
        (row["claim"], tuple(row["evidence"]), row["label"]) for row in rows
    ]
    assert read[0].labels == ("SUPPORT", "CONTRADICT", "NEI")
