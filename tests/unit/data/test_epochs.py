"""Which examples an epoch has: balanced labels, samples that go on, and stages."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from medqlora.config.data import DataOptions
from medqlora.config.stages import StageOptions
from medqlora.data import JSONLines, SyntheticTrials
from medqlora.data.balance import class_weights, groups_of
from medqlora.data.batching.epochs import EpochPlan, Part
from medqlora.data.batching.loader import StepLoader
from medqlora.data.stage_data import StageData
from medqlora.data.training_stages import TrainingStage
from medqlora.errors import InputError
from medqlora.records import Encoded

EXAMPLES = [Encoded(str(number), (1,) * (1 + number % 4), (2,)) for number in range(12)]
ANSWERS = ["yes"] * 8 + ["no"] * 3 + ["maybe"]


def test_balanced_weights_are_scikit_learns() -> None:
    import numpy as np
    from sklearn.utils.class_weight import compute_class_weight

    classes = np.unique(ANSWERS)
    expected = compute_class_weight("balanced", classes=classes, y=np.array(ANSWERS))
    assert class_weights(ANSWERS) == pytest.approx(
        dict(zip(classes.tolist(), expected.tolist(), strict=True))
    )


def test_balanced_epochs_have_each_label_as_often_and_leave_no_question_out() -> None:
    plan = EpochPlan([Part(EXAMPLES, groups=groups_of(EXAMPLES, ANSWERS))], seed=3)
    seen: Counter[int] = Counter()
    for epoch in range(6):
        order = plan.order(epoch)
        assert Counter(ANSWERS[index] for index in order) == {"yes": 4, "no": 4, "maybe": 4}
        seen.update(order)
    assert set(seen) == set(range(12))
    assert {seen[index] for index in range(8)} == {3}  # each pass has every one once
    assert plan.order(1) == EpochPlan(plan.parts, seed=3).order(1) != plan.order(2)


def test_groups_by_length_are_thirds_within_a_label() -> None:
    groups = groups_of(EXAMPLES, ANSWERS, by_length=True)
    assert sorted(index for group in groups for index in group) == list(range(12))
    assert all(len({ANSWERS[index] for index in group}) == 1 for group in groups)
    assert len(groups) > len(set(ANSWERS))


def test_a_sample_of_an_epoch_goes_on_where_the_one_before_ended() -> None:
    plan = EpochPlan([Part(EXAMPLES, epochs=3, drawn=4), Part(EXAMPLES[:2])])
    assert sorted(index for epoch in range(3) for index in plan.order(epoch)) == list(range(12))
    assert [plan.part_of(epoch) for epoch in (0, 2, 3, 4)] == [(0, 0), (0, 2), (1, 0), (1, 1)]


def test_a_loader_in_stages_resumes_in_any_of_them() -> None:
    parts = [Part(EXAMPLES[:6], epochs=2, drawn=5), Part(EXAMPLES[6:], epochs=1)]

    def loader() -> StepLoader:
        return StepLoader(EXAMPLES, 2, 100, plan=EpochPlan(parts, seed=1))

    whole, states = [], []
    straight = loader()
    for _ in range(3):
        for batch in straight:
            whole.append(batch.ids)
            states.append(straight.state_dict())
    assert [straight.steps(epoch) for epoch in range(3)] == [3, 3, 3]
    for done, state in enumerate(states[:-1], 1):
        resumed = loader()
        resumed.load_state_dict(state)
        rest: list[Any] = []
        while len(rest) < len(whole) - done:
            rest += [batch.ids for batch in resumed]
        assert rest == whole[done:]


def read(
    main: Any, stages: list[TrainingStage], tokenizer: Any, **options: Any
) -> tuple[StageData, list[str]]:
    data, lines = StageData(main, None, DataOptions(**options), stages), list[str]()
    data.read(tokenizer, ("train", "dev"), report=lines.append)
    return data, lines


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizer_families import FAMILIES, family

    return family(next(iter(FAMILIES)))


def test_stages_have_their_own_questions_epochs_and_sampling(tokenizer: Any) -> None:
    main = SyntheticTrials(train=12, dev=8, test=8)
    other = SyntheticTrials(train=20, seed=5, test=5, difficulty=1)
    stages = [TrainingStage("easy", 2, 1e-3, "label", 9, other), TrainingStage(epochs=1)]
    data, lines = read(main, stages, tokenizer, batch_size=4)
    assert data.epoch_steps == [3, 3, 3]
    assert data.stage_names == ["easy", "SyntheticTrials"]
    # both sources count from 0: the ids of the first to be read stay
    assert {example.id for example in data.parts[1].examples} == {f"train-{n:05d}" for n in range(12)}
    assert sum(example.id.startswith("easy/") for example in data.train) == 12
    assert len(data.train) == len({example.id for example in data.train}) == 32
    assert any(
        "Stage 1 of 2, easy: 2 epochs of 9 questions, rate 0.001, sampling label" in line for line in lines
    )
    loader = data.train_loader(packed=True)
    drawn = [[data.records[ident].answer for batch in loader for ident in batch.ids] for _ in range(3)]
    assert [Counter(epoch) for epoch in drawn[:2]] == [{"yes": 3, "no": 3, "maybe": 3}] * 2
    assert data.stage_at(1) == (1, "easy", 2, 2)


def test_a_stage_with_a_held_out_question_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    from harness import questions, write_rows

    names = {"train": (0, 4), "dev": (100, 3), "test": (200, 3), "leaky": (101, 1), "again": (202, 1)}
    files = {
        name: str(write_rows(tmp_path / f"{name}.jsonl", questions(count, start)))
        for name, (start, count) in names.items()
    }
    main = JSONLines(train=files["train"], dev=files["dev"], test=files["test"])
    for name, kind in (("leaky", "validation"), ("again", "test")):
        stages = [TrainingStage(source=JSONLines(train=files[name], dev_fraction=0)), TrainingStage()]
        with pytest.raises(InputError, match=rf"{name}\.jsonl.*of the {kind} set"):
            read(main, stages, tokenizer)


def test_labels_that_can_not_be_balanced_are_told(tmp_path: Path, tokenizer: Any) -> None:
    from harness import questions, write_rows

    rows = questions(4) + questions(2, 100)
    alike = [{**row, "answer": "yes"} for row in rows]
    main = JSONLines(train=str(write_rows(tmp_path / "alike.jsonl", alike)))
    with pytest.raises(InputError, match=r"--data\.balance: every training question has the answer 'yes'"):
        read(main, [], tokenizer, balance="loss")


def test_weights_and_smoothing_reach_the_training_examples_alone(tokenizer: Any) -> None:
    data, lines = read(
        SyntheticTrials(train=20, dev=8, test=8), [], tokenizer, balance="loss", label_smoothing=0.1
    )
    counts = Counter(data.records[example.id].answer for example in data.train)
    for example in data.train:
        assert example.weight == pytest.approx(20 / (3 * counts[data.records[example.id].answer]))
        assert example.smoothing == 0.1
    assert all(example.weight == 1 and not example.smoothing for example in data.dev)
    assert any(line.startswith("Balance: weights in the loss: maybe 1.33 (of 5)") for line in lines)


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"samples": 0}, {"learning_rate": -1.0}])
def test_a_stage_with_an_impossible_number_is_told(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"--data\.stages\[1\]\.{next(iter(bad))} is"):
        StageOptions(**bad).check("--data.stages[1]")


def test_a_step_holds_the_texts_of_its_own_stage_where_ids_collide(tokenizer: Any) -> None:
    main, other = (SyntheticTrials(train=8, dev=4, test=4, seed=seed) for seed in (0, 7))
    data, _ = read(
        main, [TrainingStage(source=other, name="other"), TrainingStage()], tokenizer, batch_size=3
    )
    loader = data.train_loader(packed=True)
    for epoch, source in enumerate((other, main)):
        texts = []
        for batch in loader:
            for micro in batch.micro_batches:
                ids, start = micro.input_ids[0].tolist(), 0
                for length in micro.lengths.tolist():
                    texts.append(tokenizer.decode(ids[start : start + length]))
                    start += length
        records = source.read().train
        assert len(texts) == len(records), epoch
        for record in records:
            (text,) = (text for text in texts if record.question in text)
            assert f" {record.answer}. {record.long_answer}" in text


def test_a_stage_may_not_hold_what_a_sample_or_a_topic_leaves_out_of_validation_and_test(
    tmp_path: Path, tokenizer: Any
) -> None:
    from harness import questions, write_rows

    def rows(count: int, start: int) -> list[dict[str, Any]]:
        return [{**row, "topics": [f"t{n % 2}"]} for n, row in enumerate(questions(count, start))]

    held = {"dev": rows(6, 100), "test": rows(6, 200)}
    files = {name: str(write_rows(tmp_path / f"{name}.jsonl", part)) for name, part in held.items()}
    main = JSONLines(train=str(write_rows(tmp_path / "train.jsonl", rows(8, 0))), **files)
    for kind, name in (("validation", "dev"), ("test", "test")):
        for number, row in enumerate(held[name]):
            other = {**row, "id": f"other-{number}"}
            leaky = str(write_rows(tmp_path / f"{name}{number}.jsonl", [other]))
            stages = [TrainingStage(source=JSONLines(train=leaky, dev_fraction=0)), TrainingStage()]
            with pytest.raises(InputError, match=rf"of the {kind} set"):
                read(main, stages, tokenizer, validation_samples=2, topics="t1")


def test_a_stages_images_reach_the_model(tokenizer: Any) -> None:
    from medqlora.data import SyntheticRadiographs

    class Reader:
        """Two tokens an image, in place of one that the tokenizer has."""

        placeholder, identity = "7", "two tokens"
        token_id = tokenizer.encode("7", add_special_tokens=False)[-1]

        def count(self, image: object) -> int:
            return 2

    source = SyntheticRadiographs(4, 2, 2)
    data = StageData(source, None, DataOptions(), [TrainingStage()])
    plain = StageData(source, None, DataOptions())
    for one in (data, plain):
        one.images = Reader()
        one.read(tokenizer, ("train", "dev"), report=lambda line: None)
    assert all(len(one.images) == 1 for one in plain.train)
    assert data.train == plain.train
