"""An adapter knows which questions are far from its training, and that its training data are invented."""

import json
from pathlib import Path

import pytest

from medqlora.data import SyntheticTrials
from medqlora.errors import InputError
from medqlora.inference import TrainingScope, answer_of
from medqlora.inference.training_scope import SCOPE_FILE, content_words
from medqlora.records import Prediction, Record

METFORMIN = Record("1", "Does metformin lower the risk of colorectal adenoma?")


def questions(count: int) -> list[Record]:
    """Different questions on few subjects, with a context each."""
    subjects = ("fever", "stroke", "asthma", "anemia")
    return [
        Record(str(number), f"Does drug{number} treat {subjects[number % 4]}?", (f"Trial {number}: nausea.",))
        for number in range(count)
    ]


def sure(record: Record) -> Prediction:
    return Prediction(
        record.id, None, record.labels, (-0.001, -9.0, -9.0), text="yes. It did better.", parsed="yes"
    )


def test_the_demo_is_sure_of_its_own_questions_and_of_no_other_kind() -> None:
    data = SyntheticTrials().read()
    scope = TrainingScope.of(data.train)
    assert not [record.id for record in (*data.dev, *data.test) if scope.doubts(record)]
    with_context = Record("1", METFORMIN.question, ("Adenomas were fewer with metformin.",))
    assert scope.doubts(with_context) == [
        "none of the question's content words occurs in the training questions"
    ]


def test_a_far_question_is_uncertain_whatever_its_score_and_says_why() -> None:
    scope = TrainingScope.of(questions(40))
    answer = answer_of(sure(METFORMIN), METFORMIN, scope=scope)
    assert (answer.kind, answer.decision, answer.leaning) == ("uncertain", "uncertain", "yes")
    assert answer.reason == (
        "None of the question's content words occurs in the training questions, and no context was given although "
        "every training question had one."
    )
    assert answer.calibrated is False
    assert "not calibrated: the question is unlike those of the training" in answer.text
    near = Record("1", "Is the stroke over?", ("It is over.",))
    assert answer_of(sure(near), near, scope=scope).kind == "answer"


def test_a_free_answer_to_a_far_question_is_uncertain_too() -> None:
    record = Record("1", "How does metformin act?", labels=())
    made = Prediction("1", None, (), text="By blocking it.")
    answer = answer_of(made, record, scope=TrainingScope.of(questions(40)))
    assert answer.kind == "uncertain"
    assert "Generated text: By blocking it." in answer.text


def test_a_question_without_a_context_is_near_where_one_training_question_had_none() -> None:
    train = [*questions(40), Record("none", "Is fever harmful?")]
    assert TrainingScope.of(train).doubts(Record("1", "Is fever good?")) == []


def test_the_options_are_part_of_the_question() -> None:
    train = [
        Record(str(number), "Which drug?", options={"A": "aspirin", "B": "zinc"}) for number in range(30)
    ]
    scope = TrainingScope.of(train)
    assert scope.doubts(Record("1", "Choose.", options={"A": "Zinc", "B": "iron"})) == []
    assert scope.doubts(Record("1", "Choose.", options={"A": "gold", "B": "iron"})) != []


@pytest.mark.parametrize(
    ("train", "words_of"),
    [
        (questions(40), "questions"),
        # each question has words of its own alone; their contexts share "nausea", which a question asks for
        (
            [Record(str(n), f"word{n}?", (f"word{n} word{(n + 1) % 40}",)) for n in range(40)],
            "questions and contexts",
        ),
        ([Record(str(n), f"word{n}?") for n in range(40)], "nothing"),
        ([], "nothing"),
    ],
)
def test_a_training_set_with_too_few_words_in_common_judges_no_question(
    train: list[Record], words_of: str
) -> None:
    scope = TrainingScope.of(train)
    assert scope.words_of == words_of
    assert bool(scope.words) == (words_of != "nothing")


def test_content_words_are_of_any_script_and_neither_small_words_nor_numbers() -> None:
    assert content_words(["Does the drug 7 lower ADENOMAS in 20 of them?"]) == {"drug", "lower", "adenoma"}
    assert content_words(["高血压的治疗"]) == {"高血", "血压", "压的", "的治", "治疗"}
    assert content_words(["Cafe\u0301"]) == content_words(["Café"])
    assert content_words(["Is it?", ""]) == set()


def test_a_question_of_small_words_alone_is_not_judged() -> None:
    assert TrainingScope(words=frozenset({1})).doubts(Record("1", "Is it so?")) == []


def test_what_is_saved_is_read_back_and_holds_no_word(tmp_path: Path) -> None:
    scope = TrainingScope.of(questions(40), "SyntheticTrials")
    scope.save(tmp_path)
    assert TrainingScope.load(tmp_path, {}) == scope
    assert "stroke" not in (tmp_path / SCOPE_FILE).read_text()


def test_every_answer_says_that_the_training_data_are_invented() -> None:
    for scope in (
        TrainingScope("SyntheticTrials"),
        TrainingScope.load(Path("nowhere"), {"data": {"name": "SyntheticTrials"}}),
    ):
        answer = answer_of(sure(METFORMIN), METFORMIN, scope=scope)
        for text in (answer.text, answer.shown(300), str(answer.to_json()["warning"])):
            assert "Trained on invented data (SyntheticTrials)" in text
    assert answer_of(sure(METFORMIN), METFORMIN, scope=TrainingScope()).to_json()["warning"] is None


def test_an_adapter_without_the_file_judges_as_before(tmp_path: Path) -> None:
    scope = TrainingScope.load(tmp_path, {"data": {"name": "PubMedQA"}})
    assert scope == TrainingScope()
    assert answer_of(sure(METFORMIN), METFORMIN, scope=scope) == answer_of(sure(METFORMIN), METFORMIN)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({"version": 1, "invented": None, "always_context": True, "words": "ab"}),
        json.dumps({"version": 1, "invented": None, "always_context": True, "words": "AAA="}),
        json.dumps({"version": 1, "invented": 3, "always_context": True, "words": ""}),
        json.dumps({"version": 9, "invented": None, "always_context": True, "words": ""}),
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_refused_with_the_fix(tmp_path: Path, content: str) -> None:
    (tmp_path / SCOPE_FILE).write_text(content)
    with pytest.raises(InputError, match=r"training_scope\.json: .*delete the file"):
        TrainingScope.load(tmp_path, {})


def test_a_link_out_of_the_folder_is_not_opened(tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("secret")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / SCOPE_FILE).symlink_to(outside)
    with pytest.raises(InputError, match="a link to a file outside"):
        TrainingScope.load(folder, {})
