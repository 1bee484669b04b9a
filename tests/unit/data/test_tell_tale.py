"""A prompt that holds its answer under a tell-tale key is refused; prose is not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_records import tell_tale_key

from medqlora.data import JSONLines, PubMedQA
from medqlora.data.tell_tale import reject_tell_tale
from medqlora.datamodule import PubMedQADataModule
from medqlora.errors import InputError
from medqlora.records import Record

CHOICE: dict[str, Any] = {"options": {"A": "Aspirin", "B": "Atenolol"}, "labels": ("A", "B"), "answer": "B"}
DECISION: dict[str, Any] = {"answer": "yes"}
FREE: dict[str, Any] = {"labels": (), "answer": "A beta blocker."}


def key_in(context: str, values: dict[str, Any], section: str = "") -> str | None:
    return tell_tale_key(
        Record("1", "Is it so?", (context,), context_labels=(section,) if section else (), **values)
    )


def object_of(key: str, value: Any) -> dict[str, Any]:
    return {"contexts": ["It's so."], "labels": ["RESULTS"], "meshes": ["Adult"], key: value}


@pytest.mark.parametrize(
    "key", ["final_decision", "reasoning_required_pred", "my_pred", "answer", "label", "gold"]
)
@pytest.mark.parametrize("written", [repr, json.dumps, lambda value: json.dumps(json.dumps(value))])
def test_a_key_of_a_written_object_is_found(key: str, written: Any) -> None:
    assert key_in(written(object_of(key, "yes")), DECISION) == key
    assert key_in(written(object_of(key, "B")), CHOICE) == key
    assert key_in(written(object_of(key, "A beta blocker.")), FREE) == key


@pytest.mark.parametrize(
    ("context", "values", "key"),
    [
        ("'reasoning_free_pred': ['y', 'e', 's']", DECISION, "reasoning_free_pred"),
        ("'reasoning_free_pred': array(['y', 'e', 's'], dtype=object)", DECISION, "reasoning_free_pred"),
        ("We asked 12.\nfinal_decision: yes", DECISION, "final_decision"),
        ("We asked 12.\nfinal_decision=yes\nIt was so.", DECISION, "final_decision"),
        ("It was so. final_decision: yes", DECISION, "final_decision"),
        ("Row(question='Why?', final_decision='no')", DECISION, "final_decision"),
        ("| text | final_decision |\n|---|---|\n| It was so. | yes |", DECISION, "final_decision"),
        ("contexts,LONG_ANSWER\n'It was so.',It helps.", DECISION, "LONG_ANSWER"),
        ("## Text\nIt was so.\n## final_decision\nyes", DECISION, "final_decision"),
        ("text    It was so.\nfinal_decision    yes", DECISION, "final_decision"),
        ("[text] It was so. [final_decision] yes", DECISION, "final_decision"),
        ("{&quot;reasoning_free_pred&quot;: &quot;no&quot;}", DECISION, "reasoning_free_pred"),
        ("{“final_decision”: “yes”}", DECISION, "final_decision"),
        ("Reasoning Free Pred: yes", DECISION, "Reasoning Free Pred"),
        ("<final_decision>yes</final_decision>", DECISION, "final_decision"),
        ("<answer>B</answer>", CHOICE, "answer"),
        ("- **Answer**: yes", DECISION, "Answer"),
        ("Answer: B. Atenolol", CHOICE, "Answer"),
        ("Correct answer: (B)", CHOICE, "Correct answer"),
        ("label = yes", DECISION, "label"),
        ('{"label": 1, "text": "We asked."}', DECISION, "label"),
        ('{"answer_idx": "B"}', CHOICE, "answer_idx"),
        ("{'LONG_ANSWER': 'It helps.'}", DECISION, "LONG_ANSWER"),
    ],
)
def test_the_other_forms_are_found(context: str, values: dict[str, Any], key: str) -> None:
    assert key_in(context, values) == key


@pytest.mark.parametrize("section", ["final_decision", "reasoning_required_pred", "answer", "Label"])
def test_a_section_of_that_name_is_found(section: str) -> None:
    assert key_in("yes", DECISION, section) == section


@pytest.mark.parametrize(
    ("context", "values"),
    [
        ("Answer: we found no difference between the arms.", DECISION),
        ("The answer: yes, in women.", DECISION),
        ("In answer to this, the label: warned. The gold standard: histology.", DECISION),
        ("Label: off-label use was common.", DECISION),
        ("Gold: particles of 20 nm. Target: 7.0 mmol/l.\nTarget: 7", DECISION),
        ("FEV1_pred: 85%\n{'fev1_pred': 2}", DECISION),
        ("{'label': 'RESULTS', 'text': 'It was so.'}", DECISION),
        ("{'contexts': ['It was so.'], 'labels': ['RESULTS'], 'final_decision': None}", DECISION),
        ("final_decision: \nlong_answer: null", DECISION),
        ('{"question": "Do you smoke?", "answer": [{"valueBoolean": true}]}', DECISION),
        ("COP: centre of pressure", CHOICE),
        ("Answer: A beta blocker lowers it.", CHOICE),
        ("", DECISION),
    ],
)
def test_prose_and_other_objects_are_left_alone(context: str, values: dict[str, Any]) -> None:
    assert key_in(context, values) is None


def test_sections_with_prose_are_left_alone() -> None:
    assert key_in("It was no different.", DECISION, "ANSWER") is None
    assert key_in("yes", DECISION, "RESULTS") is None


def test_a_question_may_show_the_form_of_an_answer_but_not_hold_the_row() -> None:
    assert tell_tale_key(Record("1", 'Is it so? Reply with {"answer": "yes"}.', answer="yes")) is None
    held = "{'question': 'Is it so?', 'final_decision': 'yes'}"
    assert tell_tale_key(Record("1", held, answer="yes")) == "final_decision"


@pytest.mark.parametrize(
    "question",
    [
        "Is it so? | final_decision: yes | year: 2001",
        "Is it so?\nfinal_decision = yes",
        "Row(question='Is it so?', final_decision='yes')",
        "<question>Is it so?</question><final_decision>yes</final_decision>",
        "Question: Is it so?\nAnswer: yes",
        "Q: Is it so?\nA: yes.\n",
        "Is it so?\n\n### Response:\nyes",
    ],
)
def test_a_question_with_its_own_answer_is_found_and_an_example_of_an_answer_is_none(question: str) -> None:
    assert tell_tale_key(Record("1", question, answer="yes")) is not None
    asked = [
        Record(str(n), question.replace("yes", answer if given else "yes"), answer=answer)
        for given in (True, False)
        for n, answer in enumerate(["yes", "no", "maybe", "yes"])
    ]
    with pytest.raises(InputError, match=r"\(4 of 4 records\)"):
        reject_tell_tale(asked[:4])
    reject_tell_tale(asked[4:])


@pytest.mark.parametrize(
    "told",
    [
        'Reply as {"answer": "yes"}, {"answer": "no"} or {"answer": "maybe"}.',
        'Reply with JSON: {"final_decision": "yes", "reason": "…"}.',
        "Example:\nQuestion: Is water wet?\nAnswer: yes\n\nNow you.",
    ],
)
def test_an_instruction_that_all_questions_have_gives_none_away(told: str) -> None:
    asked = [Record(str(n), f"Is {n}?", (told,), answer=answer) for n, answer in enumerate(["yes", "no"])]
    reject_tell_tale(asked)
    reject_tell_tale([replace(one, answer=None) for one in asked])
    with pytest.raises(InputError):
        reject_tell_tale(asked[:1])
    own = replace(asked[0], contexts=(told, '{"final_decision": "yes"}'))
    with pytest.raises(InputError, match=r"\(1 of 2 records\)"):
        reject_tell_tale([own, asked[1]])


def test_no_real_question_is_refused_in_either_form_of_its_context(pubmedqa_file: Path) -> None:
    records = [record for part in PubMedQA(str(pubmedqa_file)).read() for record in part]
    reject_tell_tale(records)
    named = [
        "\n".join(f"{name}: {text}" for name, text in zip(one.context_labels, one.contexts, strict=True))
        for one in records
    ]
    reject_tell_tale([replace(one, contexts=(text,)) for one, text in zip(records, named, strict=True)])
    only_text = [str({"contexts": one.contexts, "labels": one.context_labels}) for one in records]
    reject_tell_tale([replace(one, contexts=(text,)) for one, text in zip(records, only_text, strict=True)])


def test_the_message_names_the_row_the_key_and_how_many() -> None:
    bad = Record("b", "Why?", ("final_decision: yes",), answer="yes", where="own.csv:3")
    with pytest.raises(
        InputError, match=r"^own\.csv:3 \(id b\): .* the key 'final_decision' \(1 of 2 records\): take it out"
    ):
        reject_tell_tale([Record("a", "Why?"), bad])


@pytest.mark.parametrize("stages", [("train", "dev"), ("dev",), ("dev", "test"), ("test",)])
def test_every_verb_that_reads_records_refuses_them(stages: tuple[str, ...], tmp_path: Path) -> None:
    from tiny import build_tokenizer

    rows = [
        {
            "id": f"r{n}",
            "question": f"Does drug {n} help?",
            "contexts": [str({**object_of("my_pred", "yes"), "year": 2000 + n})],
            "answer": "yes",
        }
        for n in range(9)
    ]
    paths = {}
    for number, name in enumerate(("train", "dev", "test")):
        paths[name] = tmp_path / f"{name}.jsonl"
        part = rows[3 * number : 3 * number + 3]
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in part), "utf-8")
    tokenizer = build_tokenizer(["Does drug 1 help? It is so. ANSWER: yes"])
    source = JSONLines(**{name: str(path) for name, path in paths.items()})
    with pytest.raises(InputError, match=r"\.jsonl:1 \(id r\d\): .*'my_pred' \(3 of 3 records\)"):
        PubMedQADataModule(source).read(tokenizer, stages, lambda line: None)
    asked = PubMedQADataModule(source, questions=str(paths["test"]))
    with pytest.raises(InputError, match="'my_pred'"):
        asked.read_questions(tokenizer, report=lambda line: None)
