"""What the training set becomes: which examples, in which order, in how many steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import questions, write_rows
from transformers import AutoTokenizer

from medqlora.data import JSONLines
from medqlora.datamodule import PubMedQADataModule


@pytest.fixture
def read(tiny_bases: dict[str, Path], tmp_path: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bases["llama"])
    train = str(write_rows(tmp_path / "train.jsonl", questions(21)))
    dev = str(write_rows(tmp_path / "dev.jsonl", questions(3, 1000)))

    def made(**options: Any) -> PubMedQADataModule:
        source = JSONLines(train=train, dev=dev)
        data = PubMedQADataModule(source, batch_size=4, micro_batch_tokens=400, **options)
        data.read(tokenizer, ("train",), report=lambda line: None)
        trainer: Any = SimpleNamespace(
            lightning_module=SimpleNamespace(packed=True, backend=None),
            global_rank=0,
            world_size=1,
            current_epoch=0,
        )
        data.trainer = trainer
        return data

    return made


def steps(data: PubMedQADataModule) -> list[tuple[str, ...]]:
    """The ids of each step of the first epoch."""
    return [tuple(batch.ids) for batch in data.train_dataloader()]


def test_an_epoch_has_the_steps_that_its_rates_are_counted_by(read: Any) -> None:
    data = read(train_samples=18)
    assert len(steps(data)) == data.steps_per_epoch == 5  # the last one holds two examples
    assert sum(map(len, steps(data))) == 18


def test_the_seed_decides_which_examples_are_taken_and_their_order(read: Any) -> None:
    ids = [{example.id for example in read(train_samples=9, seed=seed).train} for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    orders = [steps(read(seed=seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    first, other = ({name for step in order for name in step} for order in orders[::2])
    assert first == other


def test_each_epoch_has_an_order_of_its_own(read: Any) -> None:
    data = read()
    first = steps(data)
    data.trainer.current_epoch = 1
    second = steps(data)
    assert first != second
    assert sorted(sum(first, ())) == sorted(sum(second, ()))


def test_the_longest_example_is_counted_with_the_longest_of_its_possible_ends(read: Any) -> None:
    data = read()
    (example, *_) = data.train
    long = example._replace(id="long", completion=(), labels=((1,), tuple(range(500)), (2,)))
    data.train.append(long)
    assert data.longest_example is long
    assert data.longest == len(example.prompt) + 500


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, "MEDICAL QUESTION: N/A\nCONTEXT: N/A\nANSWER:"),
        ({"contexts": []}, "MEDICAL QUESTION: N/A\nANSWER:"),
        (
            {"contexts": [], "answer": "B", "options": {"A": "x", "B": "y"}},
            "MEDICAL QUESTION: N/A\nA. N/A\nB. N/A\nANSWER:",
        ),
    ],
    ids=["contexts", "questions alone", "options"],
)
def test_the_question_with_nothing_in_it_is_put_as_the_others_are(
    changes: dict[str, Any], asked: str, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bases["llama"])
    file = write_rows(tmp_path / "test.jsonl", [{**row, **changes} for row in questions(4)])
    other = write_rows(tmp_path / "train.jsonl", [{**row, **changes} for row in questions(4, 100)])
    data = PubMedQADataModule(JSONLines(train=str(other), test=str(file)))
    data.read(tokenizer, ("test",), report=lambda line: None)
    free = data.sets[0].content_free
    assert free is not None
    assert tokenizer.decode(free.prompt, skip_special_tokens=True) == asked
    assert free.labels == data.test[0].labels
