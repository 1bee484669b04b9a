"""An answer says what was decided and how sure it is, admits where it isn't sure, and ends with its note."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqlora.errors import InputError
from medqlora.inference import (
    Answer,
    Calibration,
    answer_of,
    rationale_in,
    safe_answer,
)
from medqlora.records import YES_NO_MAYBE, Prediction, Record
from medqlora.safety import NOTE, SafeReply, check_note

OPTIONS = {"A": "Aspirin", "B": "Heparin", "C": "Warfarin"}
MARGIN = math.log(8)


def calibration(**changes: Any) -> Calibration:
    values: dict[str, Any] = {
        "temperature": 1.0,
        "threshold": 0.6,
        "target_risk": 0.1,
        "n": 50,
        "answered": 30,
        "wrong": 2,
        "risk_ci95": (0.02, 0.2),
        "labels": YES_NO_MAYBE,
        "classes": 3,
    }
    return Calibration(**{**values, **changes})


def asked(**changes: Any) -> tuple[Prediction, Record]:
    """A prediction of yes at 80%, no and maybe at 10%, and its record."""
    values: dict[str, Any] = {
        "id": "1",
        "gold": None,
        "labels": YES_NO_MAYBE,
        "logprobs": (0.0, -MARGIN, -MARGIN),
        "text": "Yes. The rates fell.",
        "parsed": "yes",
    }
    made = Prediction(**{**values, **changes})
    return made, Record(id="1", question="Does it help?", labels=made.labels)


def test_a_sure_decision_is_an_answer() -> None:
    answer = answer_of(*asked(), calibration())
    assert (answer.kind, answer.decision, answer.leaning, answer.reason) == ("answer", "yes", None, None)
    assert answer.confidence == pytest.approx(0.8)
    assert answer.probabilities == pytest.approx({"yes": 0.8, "no": 0.1, "maybe": 0.1})
    assert (answer.calibrated, answer.calibrated_on, answer.caution) == (True, 50, None)
    assert answer.rationale == "The rates fell."
    assert "Answer: yes\nConfidence 80%, calibrated on 50 questions" in answer.text


def test_the_temperature_is_applied() -> None:
    answer = answer_of(*asked(), calibration(temperature=3.0, threshold=0.0))
    assert answer.confidence == pytest.approx(0.5)  # 8 to the power of 1/3 is 2


def test_below_the_threshold_it_is_uncertain_and_says_why() -> None:
    answer = answer_of(*asked(), calibration(threshold=0.9))
    assert (answer.kind, answer.decision, answer.leaning) == ("uncertain", "uncertain", "yes")
    assert answer.reason == (
        "Its confidence of 80% is below 90%, the least for at most 10% wrong on the validation questions."
    )
    assert "Answer:" not in answer.text
    assert "The model leans to yes" in answer.text


def test_at_the_threshold_it_is_answered() -> None:
    made, record = asked()
    exact = answer_of(made, record, calibration(threshold=0.0)).confidence
    assert exact is not None
    assert answer_of(made, record, calibration(threshold=exact)).kind == "answer"
    assert answer_of(made, record, calibration(threshold=math.nextafter(exact, 1))).kind == "uncertain"


def test_an_unreachable_threshold_makes_even_the_surest_uncertain() -> None:
    answer = answer_of(*asked(logprobs=(0.0, -900.0, -900.0)), calibration(threshold=2.0))
    assert answer.kind == "uncertain"
    assert "no confidence was enough" in str(answer.reason)


def test_a_text_that_says_otherwise_makes_it_uncertain() -> None:
    answer = answer_of(*asked(text="No. The rates rose.", parsed="no"), calibration())
    assert (answer.kind, answer.leaning) == ("uncertain", "yes")
    assert answer.reason == "The generated text says 'no', the scores say 'yes'."


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("no. It did no better than placebo.", "uncertain"),
        ("Maybe. This stayed open.", "uncertain"),
        ("No other drug was tried, so aspirin.", "answer"),
        ("It acts at once.", "answer"),
    ],
)
def test_with_options_a_text_that_says_yes_or_no_makes_it_uncertain(text: str, kind: str) -> None:
    """An adapter that learned yes and no goes on saying them: its scores of the options then mean little."""
    options = {"A": "aspirin", "B": "zinc"}
    made = Prediction("1", None, ("A", "B"), (-0.001, -9.0), text=text)
    answer = answer_of(made, Record("1", "Which drug?", options=options, labels=("A", "B")))
    assert answer.kind == kind
    if kind == "uncertain":
        assert answer.reason == (
            f"The generated text says {text.split('.')[0].lower()!r}, the scores say 'A' (aspirin)."
        )
        assert "The model leans to A: aspirin" in answer.text


def test_an_option_may_be_the_word_no() -> None:
    made = Prediction("1", None, ("A", "B"), (-9.0, -0.001), text="no. It did no better.")
    record = Record("1", "Does it help?", options={"A": "Yes", "B": "No"}, labels=("A", "B"))
    assert answer_of(made, record).kind == "answer"


def test_a_text_that_says_nothing_readable_does_not() -> None:
    assert answer_of(*asked(text="Rates fell.", parsed=None), calibration()).kind == "answer"


@pytest.mark.parametrize(
    ("learned", "caution"),
    [
        (None, "no calibration was saved"),
        (calibration(labels=("A", "B")), "made for other answers"),
        (calibration(n=5, threshold=0.1), "5 validation questions are too few"),
        (calibration(classes=1, threshold=0.1), "the same answer"),
    ],
)
def test_an_unreliable_confidence_is_marked_but_not_uncertain_by_itself(
    learned: Calibration | None, caution: str
) -> None:
    answer = answer_of(*asked(), learned)
    assert answer.kind == "answer"
    assert not answer.calibrated
    assert answer.calibrated_on is None
    assert caution in str(answer.caution)
    assert "Confidence 80%, not calibrated: " in answer.text


def test_a_calibration_of_other_labels_judges_nothing() -> None:
    answer = answer_of(*asked(), calibration(labels=("A", "B"), threshold=2.0, temperature=9.0))
    assert answer.confidence == pytest.approx(0.8)
    assert answer.kind == "answer"


def test_multiple_choice_shows_the_options_text() -> None:
    made = Prediction(
        "1", None, ("A", "B", "C"), (-3.0, -0.1, -4.0), text="B. Heparin. It acts at once.", parsed="B"
    )
    record = Record("1", "Which drug?", options=OPTIONS, labels=("A", "B", "C"))
    answer = answer_of(made, record)
    assert (answer.decision, answer.option_text, answer.rationale) == ("B", "Heparin", "It acts at once.")
    assert "Answer: B: Heparin" in answer.shown()


def test_a_free_answer_is_shown_as_written() -> None:
    made = Prediction("1", None, (), text="Yes. By blocking thrombin.")
    answer = answer_of(made, Record("1", "How does it act?", labels=()), calibration())
    assert (answer.kind, answer.decision, answer.confidence) == ("answer", None, None)
    assert answer.text == f"Yes. By blocking thrombin.\n\n{NOTE}"


def test_a_written_decision_without_scores_has_no_confidence() -> None:
    answer = answer_of(*asked(logprobs=()), calibration())
    assert (answer.decision, answer.confidence, answer.calibrated) == ("yes", None, False)
    assert "Confidence unknown" in answer.text
    unread = answer_of(*asked(logprobs=(), text="Hm.", parsed=None), calibration())
    assert (unread.kind, unread.leaning) == ("uncertain", None)
    assert unread.reason == "No decision could be read from the generated text."


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_decide_nothing(bad: float) -> None:
    answer = answer_of(*asked(logprobs=(bad, -1.0, -2.0)), calibration(threshold=0.0))
    assert (answer.kind, answer.leaning, answer.confidence) == ("uncertain", None, None)
    json.dumps(answer.to_json(), allow_nan=False)


def test_certainty_is_never_shown_as_100_percent() -> None:
    assert "100%" not in answer_of(*asked(logprobs=(0.0, -900.0, -900.0)), calibration()).text


def test_a_safe_reply_is_shown_instead_of_an_answer() -> None:
    reply = SafeReply("emergency", "Call 112.\nPoison control: 1-800-222-1222.")
    answer = safe_answer(Record("1", "My son swallowed bleach"), reply)
    assert (answer.kind, answer.decision, answer.confidence, answer.rationale) == (
        "safe_reply",
        None,
        None,
        "",
    )
    assert answer.text == f"{reply.text}\n\n{NOTE}"
    assert answer.to_json()["reply"] == {"kind": "emergency", "text": reply.text}
    assert "1-800-222-1222" in answer.shown(24).replace("\n", " ")


def test_another_questions_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="question 1, the record is 2"):
        answer_of(asked()[0], Record("2", "Another?"))


@given(
    text=st.text(max_size=200),
    question=st.text(max_size=40),
    option=st.text(max_size=20),
    threshold=st.floats(0, 2),
    width=st.integers(0, 120),
    scores=st.lists(st.floats(-1000, 0), min_size=2, max_size=2),
)
def test_whatever_is_said_the_note_comes_last_and_nothing_steers_the_terminal(
    text: str, question: str, option: str, threshold: float, width: int, scores: list[float]
) -> None:
    made = Prediction("1", None, ("A", "B"), tuple(scores), text=text)
    record = Record("1", question, options={"A": option, "B": "x"}, labels=("A", "B"))
    answer = answer_of(made, record, calibration(labels=("A", "B"), threshold=threshold, classes=2))
    assert answer.text.endswith(f"\n\n{NOTE}")
    shown = answer.shown(width)
    assert " ".join(shown.split()).endswith(NOTE)
    for line in shown.split("\n"):
        assert line.isprintable()
        assert len(line) <= max(width, 20)
    plain = answer.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    json.dumps(plain, ensure_ascii=False).encode("utf-8")


def test_half_a_surrogate_pair_can_be_written() -> None:
    answer = answer_of(*asked(text="Yes. \ud800"), calibration())
    json.dumps(answer.to_json(), ensure_ascii=False).encode("utf-8")


def test_an_answer_cannot_be_made_without_its_note() -> None:
    with pytest.raises(InputError):
        Answer(id="1", question="?", kind="answer", note="")


def test_a_reworded_note_is_what_is_shown() -> None:
    answer = answer_of(*asked(), note="  Ask your doctor before you act. ")
    assert answer.text.endswith("\n\nAsk your doctor before you act.")


@pytest.mark.parametrize(
    "note", [NOTE, "Kein ärztlicher Rat; fragen Sie Fachleute.", "本内容不构成医疗建议，请咨询医生。"]
)
def test_a_note_may_be_reworded_in_any_language(note: str) -> None:
    assert check_note(f" {note}\n", "--answers.note") == note


@pytest.mark.parametrize("note", ["", "   ", "ok", "one two three four", "- - - - - -", "1 2 3 4 5 6", None])
def test_a_note_that_says_nothing_is_refused(note: Any) -> None:
    with pytest.raises(InputError, match=r"^--answers\.note is "):
        check_note(note, "--answers.note")


@pytest.mark.parametrize("sign", ["\n", "\x1b[2J", "\x00", "\u202e", "\r"])
def test_a_note_with_a_control_character_is_refused(sign: str) -> None:
    with pytest.raises(InputError, match=r"^--answers\.note has the control character"):
        check_note(f"Not medical advice;{sign} ask a doctor.", "--answers.note")


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        ("Yes. The rates fell.", "The rates fell."),
        (" yes. The rates fell.", "The rates fell."),
        ("**Answer:** no. The rates rose.", "The rates rose."),
        ("**Answer**: no\n\nThe rates rose.", "The rates rose."),
        ("The answer is maybe. It is open.", "It is open."),
        ("Final answer: Yes", ""),
        ("**Yes.** The rates fell.", "The rates fell."),
        ("Yes, because the rates fell.", "because the rates fell."),
        ("yes", ""),
        ("No difference was found.", "No difference was found."),
        ("No. 5 of the patients died.", "No. 5 of the patients died."),
        ("yes or no, who knows", "yes or no, who knows"),
        ("Rates fell, so yes.", "Rates fell, so yes."),
        ("<think>no, well</think>Yes. The rates fell.", "The rates fell."),
        (
            "<|channel|>analysis<|message|>no, well<|end|><|start|>assistant<|channel|>final<|message|>Yes. They fell.",
            "They fell.",
        ),
        ("<|im_start|>assistant\nYes. The rates fell.", "The rates fell."),
        ("Yes. The rates fell.<|eot_id|>Question: next", "The rates fell."),
        ("Yes.\n- one\n- two (a)", "- one\n- two (a)"),
        ("", ""),
    ],
)
def test_the_rationale_is_what_follows_the_decision(text: str, rationale: str) -> None:
    assert rationale_in(text, YES_NO_MAYBE) == rationale


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        ("B. Heparin. It acts at once.", "It acts at once."),
        ("(B) It acts at once.", "It acts at once."),
        ("Answer: B) Heparin\nIt acts at once.", "It acts at once."),
        ("Heparin. It acts at once.", "It acts at once."),
        ("A patient like this needs heparin.", "A patient like this needs heparin."),
    ],
)
def test_an_options_letter_and_text_go_together(text: str, rationale: str) -> None:
    assert rationale_in(text, tuple(OPTIONS), OPTIONS) == rationale


@given(st.text(max_size=200))
def test_a_rationale_is_a_part_of_what_was_written(text: str) -> None:
    assert rationale_in(text, YES_NO_MAYBE) in text


def test_importing_the_room_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'lightning', 'transformers'}"
    code = f"import sys, medqlora.inference; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
