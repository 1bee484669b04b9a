"""Kinds of outputs, each made in many forms: what states no single decision is not read, whatever its form."""

from collections.abc import Iterator

import pytest
from decision_long_answers import LONG, MORE
from decision_plain_answers import QUESTIONS
from decision_short_answers import SHORT

from medqlora.evaluation.parsing.decisions import parse_decision

LABELS = ("A", "B", "C", "D")
MUSCLES = {"A": "Masseter", "B": "Temporalis", "C": "Lateral pterygoid", "D": "Medial pterygoid"}


def parsed(text: str, question: str) -> str | None:
    options = MORE.get(question) or QUESTIONS[question]
    return parse_decision(text, tuple(options), options if isinstance(options, dict) else None)


@pytest.mark.parametrize(("text", "question", "decision"), [*LONG, *SHORT])
def test_reads_an_answer_as_a_person_would(text: str, question: str, decision: str | None) -> None:
    assert parsed(text, question) == decision


# --- several options, each with its text

HEADINGS = ("{}. {}", "{}) {}", "({}) {}", "{}: {}", "**{}. {}**", "Option {}: {}", "{} - {}")
JOINTS = (
    *(
        " or ",
        " and ",
        ", ",
        " / ",
        "; ",
        ", or ",
        " and/or ",
        " or possibly ",
        " as well as ",
        "\n",
        " & ",
        " plus ",
    ),
    *(" vs ", " | ", ". ", " "),
)
ANNOUNCEMENTS = (
    *(
        "{}",
        "The answer is {}.",
        "Answer: {}",
        '{{"answer_choice": "{}"}}',
        "Therefore, {}",
        "I would choose {}.",
    ),
    *(
        "<answer>{}</answer>",
        "\\boxed{{{}}}",
        "**Final Answer:** {}",
        "答案：{}",
        "Die richtige Antwort ist {}.",
    ),
)


def headed(label: str, text: str) -> Iterator[str]:
    yield from (heading.format(label, text) for heading in HEADINGS)
    yield f"{text} ({label})"


@pytest.mark.parametrize("joint", JOINTS)
def test_several_options_each_with_its_text_decide_nothing(joint: str) -> None:
    for first, second in (("A", "B"), ("D", "C")):
        for one, two in zip(headed(first, MUSCLES[first]), headed(second, MUSCLES[second]), strict=True):
            for announcement in ANNOUNCEMENTS:
                text = announcement.format(one + joint + two)
                assert parse_decision(text, LABELS, MUSCLES) is None, text


@pytest.mark.parametrize("joint", JOINTS[:-2])
def test_several_options_in_other_words_decide_nothing(joint: str) -> None:
    for heading in HEADINGS:
        for announcement in ANNOUNCEMENTS:
            text = announcement.format(
                heading.format("A", "the jaw muscle") + joint + heading.format("B", "the other")
            )
            assert parse_decision(text, LABELS, MUSCLES) is None, text
            assert parse_decision(text, LABELS) is None, text


@pytest.mark.parametrize(
    "rest",
    [
        "",
        ".",
        ", because it fits best.",
        ".\n\nExplanation: {} is wrong.",
        "<|eot_id|>",
        ".\n\nQUESTION\nWhich?\nAnswer: B",
    ],
)
def test_one_option_with_its_text_is_read(rest: str) -> None:
    for one in headed("D", MUSCLES["D"]):
        for announcement in ANNOUNCEMENTS:
            if announcement.endswith(("}}", "</answer>", ".")) and rest:
                continue
            text = announcement.format(one) + rest.format("B. Temporalis")
            assert parse_decision(text, LABELS, MUSCLES) == "D", text


# --- a text that is cut inside its list of the options

REASONS = {
    "A": ("It closes the jaw, so it is incorrect.", "this is not the muscle that is asked for."),
    "B": ("It retracts the jaw.", "less likely."),
    "C": ("It opens the jaw.", "Correct."),
    "D": ("It closes the jaw as well.", "unlikely."),
}
ITEMS = (
    *(
        "{l}) {t}: {w}\n\n",
        "{l}. {t}: {w}\n",
        "({l}) {t} - {w}\n\n",
        "**{l}. {t}**: {w}\n\n",
        "- **{l}) {t}** – {w}\n",
    ),
    *("Option {l}: {t}. {w}\n\n", "Option {l} ({t}): {w}\n\n", "### {l}. {t}\n{w}\n\n", "* {t}: {w}\n"),
    *("{n}. {l}) {t}: {w}\n", "{n}. **{t}**: {w}\n", "**Option {l}: {t}**\n\n{w}\n\n", "{t} ({l}): {w}\n\n"),
)
INTRODUCTIONS = ("", "The question is about mastication.\n\n", "Let's analyze each option:\n\n")


@pytest.mark.parametrize("item", ITEMS)
def test_a_text_cut_anywhere_in_its_list_of_the_options_decides_nothing(item: str) -> None:
    for kind, introduction in ((0, INTRODUCTIONS[0]), (1, INTRODUCTIONS[1]), (0, INTRODUCTIONS[2])):
        parts = [
            item.format(l=label, t=text, w=REASONS[label][kind], n=place + 1)
            for place, (label, text) in enumerate(MUSCLES.items())
        ]
        body = introduction + "".join(parts)
        for cut in range(len(introduction) + len(parts[0]) + 1, len(body) + 1):
            assert parse_decision(body[:cut], LABELS, MUSCLES) is None, body[:cut]
        for end in ("Therefore, the correct answer is C.", "\n\n**Final answer: C**"):
            assert parse_decision(body + end, LABELS, MUSCLES) == "C", body + end


# --- an answer to a question that the model asks itself

HEADERS = (
    *(
        "Question: {}",
        "QUESTION\n{}",
        "## Question\n{}",
        "**Question:** {}",
        "Question 2: {}",
        "Question #2: {}",
    ),
    *(
        "Q: {}",
        "Q2: {}",
        "MEDICAL QUESTION: {}",
        "## Medical Question\n\n{}",
        "Here is another question:\n{}",
    ),
    *(
        "Abstract: {}",
        "ABSTRACT\n{}",
        "Context: {}",
        "### Instruction:\n{}",
        "### Instruction\n{}",
        "### Input:\n{}",
    ),
    *(
        "Human: {}",
        "### User:\n{}",
        "user\n{}",
        "<|user|>\n{}",
        "<start_of_turn>user\n{}",
        "[INST] {} [/INST]",
    ),
    *(
        "<|im_start|>user\n{}",
        "<|start_header_id|>user<|end_header_id|>\n\n{}",
        "问题：{}",
        "Frage: {}",
        "Pregunta: {}",
    ),
)
NEXT_QUESTION = "Which nerve is numb?\nA. Facial\nB. Mental\nC. Lingual\nD. Buccal\n\n{}"


@pytest.mark.parametrize("header", HEADERS)
def test_a_further_question_ends_the_answer(header: str) -> None:
    for answer in ("Answer: C", "The answer is C.", "**Final Answer:** C", "### Answer\nC"):
        further = "\n\n" + header.format(NEXT_QUESTION.format(answer))
        for before, decision in (
            ("A", "A"),
            ("The answer is A.", "A"),
            ("It closes the jaw.", None),
            ("A or B", None),
        ):
            assert parse_decision(before + further, LABELS, MUSCLES) == decision, before + further
    for before, decision in (("no", "no"), ("Answer: no", "no"), ("It is unclear.", None)):
        text = before + "\n\n" + header.format("Does it help in gout?") + "\nAnswer: yes"
        assert parse_decision(text, ("yes", "no", "maybe")) == decision, text


# --- an option's text with another option's letter; what is none of the options


@pytest.mark.parametrize("announcement", ANNOUNCEMENTS)
def test_an_options_text_with_another_options_letter_decides_nothing(announcement: str) -> None:
    for label, text in (("A", "Temporalis"), ("D", "masseter"), ("B", "Medial pterygoid")):
        for option in (
            *headed(label, text),
            f"{label}--{text}",
            f"{label} – {text}",
            f"{text}, option {label}",
        ):
            assert parse_decision(announcement.format(option), LABELS, MUSCLES) is None, announcement.format(
                option
            )


@pytest.mark.parametrize(
    "stated", ["E", "(E)", "E.", "none of the above", "None", "both", "neither", "all of the above"]
)
@pytest.mark.parametrize(
    "announcement", ["The answer is {}.", "Answer: {}", "**Final Answer:** {}", '{{"answer": "{}"}}']
)
def test_a_stated_answer_that_is_no_option_decides_nothing(stated: str, announcement: str) -> None:
    for before in ("", "Option B is correct. ", "B. Temporalis\n\n"):
        text = before + announcement.format(stated)
        assert parse_decision(text, LABELS, MUSCLES) is None, text
