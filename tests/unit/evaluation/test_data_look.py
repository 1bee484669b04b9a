"""What `medqlora data` shows is what training reads: mask, packing and counts against a second computation."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import build_tokenizer

from medqlora.data import encode_all, lookup
from medqlora.data.batching.loader import StepLoader
from medqlora.evaluation.data_look import DataLook, shown_examples, token_mask
from medqlora.evaluation.report.look_console import findings
from medqlora.evaluation.report.look_page import render_look
from medqlora.records import Record

ANSWERS = ("yes", "no", "maybe")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(["MEDICAL QUESTION: does it help?\nCONTEXT: the trial\nANSWER: yes."])


def questions(count: int, start: int = 0) -> list[Record]:
    return [
        Record(
            f"q{number}",
            f"Is drug {number * 7919} of use in the <b>ward</b> {number * 104729}?",
            (f"Of {number + 20} patients {number * 31} recovered within {number * 17} days.",),
            answer=ANSWERS[number % 3],
            long_answer="Größe – 5 µg.",
        )
        for number in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def look(tokenizer: Any) -> DataLook:
    train = questions(30)
    train += [replace(train[2], id="again"), replace(train[4], id="bare", contexts=(" ",))]
    dev = [*questions(5, 100), replace(train[3], id="leak")]
    records = {"train": train, "dev": dev, "test": questions(2, 200)}
    encoded = {name: encode_all(part, lookup("medical"), tokenizer, 90) for name, part in records.items()}
    return DataLook("ours", "medical", 90, 8, 400, 3, records, encoded, ("Warning: few",))


def test_the_learned_tokens_are_the_completion_and_no_token_before_it(look: DataLook, tokenizer: Any) -> None:
    for example in look.encoded["train"]:
        tokens = token_mask(example, tokenizer)
        # the mask of a labels tensor, as other trainers write it: -100 over the prompt
        labels = [-100] * len(example.prompt) + list(example.completion)
        assert [token.learned for token in tokens] == [label != -100 for label in labels]
    whole = "".join(token.text for token in tokens if "Ã" not in token.text)
    assert whole.startswith("<s>")
    assert whole.endswith("</s>")
    assert all("�" not in token.text for token in tokens)  # half a letter is shown as its bytes


def test_the_packing_is_that_of_the_steps_of_the_fit(look: DataLook) -> None:
    examples = look.encoded["train"]
    loader = StepLoader(examples, 8, 400, seed=3)
    by_id = {example.id: example for example in examples}
    for rows, step in zip(look.first_steps(3), loader, strict=False):
        shown = Counter(pair for row in rows for pair in row.examples)
        wanted = Counter((len(by_id[name].prompt), len(by_id[name].completion)) for name in step.ids)
        assert shown == wanted
        assert sum(row.learned for row in rows) == step.completion_tokens
        assert all(row.tokens <= 400 or len(row.examples) == 1 for row in rows)
    padded = replace(look, packed=False).first_steps(3)
    assert [sum(row.learned for row in rows) for rows in padded] == [
        sum(row.learned for row in rows) for rows in look.first_steps(3)
    ]


def test_counts_and_findings(look: DataLook) -> None:
    facts = look.facts()
    train = facts["sets"]["train"]
    assert train["questions"] == 32
    assert train["labels"] == dict(Counter(record.answer for record in look.records["train"]))
    assert (train["repeated"], train["without_context"]) == (1, 1)
    assert train["shortened"] == sum(one.dropped > 0 for one in look.encoded["train"]) > 0
    assert facts["without_context"] == ["bare"]
    places = {(pair["first"], pair["second"], pair["second_set"]) for pair in facts["same"]}
    assert places == {("q2", "again", "train"), ("q3", "leak", "dev")}
    lines = findings(facts)
    assert lines[0].startswith("Leak: 1 pair of questions in two sets have the same texts")
    assert any("shortened to the limit of 90 prompt" in line for line in lines)
    assert "Warning: few" in lines


def test_the_page_shows_them_escaped_and_loads_nothing(
    look: DataLook, tokenizer: Any, tmp_path: Path
) -> None:
    page = render_look(look, look.facts(), tokenizer, {"file": "<script>x</script>"}, 4)
    assert "<script" not in page
    assert "http-equiv" in page
    assert page.count("<article>") == 4
    chosen = shown_examples(look.records["train"], look.encoded["train"], 4)
    learned = sum(len(look.encoded["train"][index].completion) for index in chosen)
    assert page.count('class="learned"') == learned + 1  # and the legend's
    assert "https://" not in page.split("</style>")[1]


def test_sets_without_questions_are_left_out(look: DataLook, tokenizer: Any) -> None:
    some = replace(look, records={**look.records, "test": []}, encoded={**look.encoded, "test": []})
    assert list(some.facts()["sets"]) == ["train", "dev"]
    assert "train" in render_look(some, some.facts(), tokenizer, {})
