"""`data.rationale`: what is learned beside a decision, and where the decision stands and is scored."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizer_families import FAMILIES, family

from medqlora.config.data import DataOptions
from medqlora.data import SyntheticTrials, encode_all, lookup
from medqlora.data.stage_data import StageData
from medqlora.data.training_stages import TrainingStage
from medqlora.errors import InputError
from medqlora.inference.evaluator import after_rationale
from medqlora.training.checks.examples import check_examples


def read(rationale: str, tokenizer: Any) -> StageData:
    data = StageData(
        SyntheticTrials(train=6, dev=4, test=4),
        None,
        DataOptions(rationale=rationale),  # type: ignore[arg-type]
    )
    data.read(tokenizer, ("train", "dev"), report=lambda line: None)
    return data


def stripped(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """As the evaluator decodes."""
    return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_decision_stands_where_the_option_says(kind: str) -> None:
    tokenizer = family(kind)
    found = {name: read(name, tokenizer) for name in ("none", "after", "before")}
    for name, data in found.items():
        for example in data.train:
            record = data.records[example.id]
            text = tokenizer.decode(list(example.completion), skip_special_tokens=True).strip()
            expected = {
                "none": f"{record.answer}.",
                "after": f"{record.answer}. {record.long_answer}",
                "before": f"{record.long_answer} Answer: {record.answer}.",
            }[name]
            assert text == expected
            gold = example.labels[record.labels.index(str(record.answer))]
            assert tuple(example.completion[example.label_at : example.label_at + len(gold)]) == gold
            if name == "before":
                before = example.completion[: example.label_at]
                assert tuple(before[-len(example.lead) :]) == example.lead
                scored = after_rationale(example, list(example.completion), stripped(tokenizer))
                assert list(scored.prompt) == [*example.prompt, *before]
                # what never comes to an answer is asked for one
                silent = after_rationale(example, list(before[: -len(example.lead)]), stripped(tokenizer))
                assert list(silent.prompt) == [*example.prompt, *before]


@pytest.mark.parametrize("prompt", ["medical", "chat", "lm_eval"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_without_a_rationale_the_decision_is_scored_after_one_lead(kind: str, prompt: str) -> None:
    tokenizer = family(kind)
    if prompt == "chat" and not tokenizer.chat_template:
        pytest.skip("no chat template")
    record = replace(SyntheticTrials(train=1, dev=0, test=1).read().train[0], long_answer="")
    before = lookup(f"{prompt}+rationale_first", rationale_first=True)
    (example,) = encode_all([record], before, tokenizer, 512, progress=False)
    learned = list(example.completion)
    assert stripped(tokenizer)(learned).startswith("Answer: ")
    scored = after_rationale(example, learned, stripped(tokenizer))
    # exactly the tokens that training had before the decision
    assert list(scored.prompt) == [*example.prompt, *learned[: example.label_at]]


def test_other_commands_refuse_an_adapter_whose_decision_comes_last() -> None:
    name = read("before", family(next(iter(FAMILIES)))).prompt_name
    assert lookup(name, rationale_first=True).lead
    with pytest.raises(InputError, match=r"data\.rationale: before"):
        lookup(name)


def test_the_cache_keeps_where_the_decision_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path))
    tokenizer = family(next(iter(FAMILIES)))
    records = SyntheticTrials(train=4, dev=0, test=4).read().train
    prompt = lookup("medical+rationale_first", rationale_first=True)
    made: Sequence[Any] = encode_all(records, prompt, tokenizer, 512, progress=False)
    kept = encode_all(records, prompt, tokenizer, 512, progress=False)
    assert [(one.label_at, one.lead) for one in kept] == [(one.label_at, one.lead) for one in made]
    assert all(one.label_at and one.lead for one in kept)


@pytest.mark.parametrize("rationale", ["none", "after", "before"])
def test_the_checks_of_a_fit_take_what_each_option_learns(rationale: str) -> None:
    tokenizer = family(next(iter(FAMILIES)))
    assert check_examples(read(rationale, tokenizer), tokenizer) == []
    staged = StageData(
        SyntheticTrials(train=6, dev=4, test=4),
        None,
        DataOptions(rationale=rationale),  # type: ignore[arg-type]
        [TrainingStage(source=SyntheticTrials(train=6, test=4, seed=5)), TrainingStage()],
    )
    staged.read(tokenizer, ("train", "dev"), report=lambda line: None)
    assert check_examples(staged, tokenizer) == []
