"""An answer in parts: its decision first, then its words, and at the end what the whole machinery says."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from medqlora.errors import InputError
from medqlora.evaluation.parsing.decisions import parse_decision
from medqlora.inference import AnswerPart, Predictor, answer_of
from medqlora.inference.streaming import PartsOfAnswer, iterate
from medqlora.records import Prediction, Record
from medqlora.safety import NOTE

RECORD = Record("question", "Does it help?")
SCORED = Prediction("question", None, ("yes", "no", "maybe"), (-0.1, -3.0, -4.0), (1, 1, 1))


def parts_of(
    text: str, record: Record = RECORD, scored: Prediction = SCORED, step: int = 3
) -> list[AnswerPart]:
    """The parts of an answer whose text arrives `step` letters at a time."""
    found: list[AnswerPart] = []

    def report(part: AnswerPart | None) -> None:
        found.extend([] if part is None else [part])

    parts = PartsOfAnswer(record, lambda prediction: answer_of(prediction, record), report)
    parts.so_far(scored)
    for end in range(step, len(text), step):
        parts.so_far(replace(scored, text=text[:end]))
    whole = replace(scored, text=text, parsed=parse_decision(text, record.labels, record.options))
    parts.complete(answer_of(whole, record))
    return found


@pytest.mark.parametrize(
    "text",
    [
        "yes. The rates fell in both arms of the trial.",
        "**Answer:** yes\n\nThe rates fell.\nIn both arms.",
        "Yes",
        "",
        "<think>It may be no. But then yes.</think>yes. The rates fell.",
        "The rates fell by a third in each of the four arms of the trial, and nowhere else at all.",
        "yes. 两组的发生率均下降" + "且无不良反应" * 20,
    ],
)
@pytest.mark.parametrize("step", [1, 7])
def test_the_pieces_join_to_the_rationale_behind_a_decision_that_is_known_first(text: str, step: int) -> None:
    first, *rest = parts_of(text, step=step)
    whole = rest[-1].answer
    assert (first.answer.decision, first.answer.confidence, first.answer.rationale) == (
        "yes",
        whole.confidence,
        "",
    )
    assert [part.complete for part in rest] == [False] * (len(rest) - 1) + [True]
    assert "".join(part.text for part in rest) == whole.rationale
    assert whole == answer_of(replace(SCORED, text=text, parsed=parse_decision(text, RECORD.labels)), RECORD)


def test_words_are_passed_on_while_the_text_goes_on() -> None:
    parts = parts_of("yes. The rates fell in both arms.", step=1)
    assert [part.text.strip() for part in parts if part.text] == [
        "The",
        "rates",
        "fell",
        "in",
        "both",
        "arms.",
    ]


def test_a_text_that_says_another_decision_makes_the_first_part_uncertain() -> None:
    first = parts_of("No, not in this trial: the rates were the same.", step=1)[0]
    assert (first.answer.kind, first.answer.leaning) == ("uncertain", "yes")


def test_a_text_that_takes_its_decision_back_changes_the_last_part() -> None:
    text = "yes. The rates fell in one arm alone. Wait, the final answer is no."
    parts = parts_of(text)
    assert parts[0].answer.kind == "answer"
    assert (parts[-1].answer.kind, parts[-1].answer.leaning) == ("uncertain", "yes")


def test_a_word_that_only_looks_like_a_decision_decides_nothing() -> None:
    """ "No difference" is no "no": the scores say yes, and the text does not contradict them."""
    parts = parts_of("No difference was found between the arms, and the drug was well liked by all.", step=1)
    assert {part.answer.kind for part in parts} == {"answer"}


def test_a_free_answer_begins_at_once() -> None:
    record, scored = Record("question", "How?", labels=()), Prediction("question", None, ())
    parts = parts_of("It blocks the channel.", record, scored)
    assert parts[0].answer.decision is None
    assert len(parts) > 3
    assert "".join(part.text for part in parts) == "It blocks the channel."


@pytest.fixture(scope="module")
def predictor(tiny_bases: dict[str, Path]) -> Predictor:
    return Predictor.load(tiny_bases["llama"], device="cpu", max_new_tokens=24)


def test_a_streamed_answer_ends_as_the_one_that_is_given_at_once(predictor: Predictor) -> None:
    for question, options in (("Does drug 7 help?", None), ("Which helps?", ["Aspirin", "Atenolol"])):
        parts = list(predictor.answer_stream(question, "Trial 7 of it.", options))
        assert parts[-1].answer == predictor.answer(question, "Trial 7 of it.", options)
        assert len(parts) > 1


def test_closing_the_stream_ends_the_generation(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    closing = threading.Event()
    forward = predictor.model.forward

    def counted(*args: object, **options: object) -> object:
        steps.append(1)
        if len(steps) > 3:
            closing.wait(60)
        return forward(*args, **options)

    monkeypatch.setattr(predictor.model, "forward", counted)
    monkeypatch.setattr(predictor, "labels", ())  # a free answer: its first part needs no step
    stream = predictor.answer_stream("How does drug 7 help?", "Trial 7 of it.")
    next(stream)
    threading.Timer(0.2, closing.set).start()
    stream.close()
    assert len(steps) <= 4
    assert "answer" not in {thread.name for thread in threading.enumerate()}


def test_what_is_wrong_is_raised_at_the_call_and_a_fixed_reply_needs_no_model(predictor: Predictor) -> None:
    with pytest.raises(InputError, match="not a text in UTF-8"):
        predictor.answer_stream("\udcff")
    with pytest.raises(InputError, match="note"):
        predictor.answer_stream("Does it help?", note=" ")
    (part,) = predictor.answer_stream("I want to kill myself")
    assert part.complete
    assert part.answer.reply is not None
    assert part.answer.note == NOTE


def test_an_error_of_the_model_reaches_whoever_takes_the_parts() -> None:
    def fails(report: object) -> None:
        raise MemoryError("of the device")

    with pytest.raises(MemoryError, match="of the device"):
        next(iterate(fails))
