"""Rows with any values in any columns give usable records or a one-line error."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reader_cases import check_message

from medqlora.data import JSONLines, read_questions
from medqlora.errors import InputError
from medqlora.records import Record

NAMES = (
    *(
        "question",
        "contexts",
        "context",
        "answer",
        "label",
        "options",
        "choices",
        "messages",
        "conversations",
    ),
    *(
        "prompt",
        "completion",
        "instruction",
        "input",
        "output",
        "answers",
        "id",
        "pmid",
        "topics",
        "long_answer",
    ),
    *("exp", "A", "B", "opa", "opb", "paragraphs", "text", "labels", "cop", "final_decision", "LABELS"),
)
KEYS = (
    *(
        "text",
        "label",
        "title",
        "role",
        "content",
        "from",
        "value",
        "key",
        "contexts",
        "labels",
        "meshes",
        "A",
        "B",
    ),
    *("METHODS", "answer", "my_pred", "qas", "context", "question", "", "0", "1"),
)
TEXTS = (
    *(
        "Q?",
        "yes",
        "No. It fell.",
        "['a', 'b']",
        "[1",
        "{'a': 'b'}",
        "A) x\nB) y",
        "B",
        "0",
        "1",
        "-1",
        "2.0",
        "true",
    ),
    *(
        "",
        "\u200b",
        "a" * 60,
        "[{'role': 'user', 'content': 'Q?'}]",
        "array(['x', 'y'], dtype=object)",
        "['a'",
    ),
    *(
        '{"text": ["x", "y"], "label": ["A", "B"]}',
        "Option A",
        "A, because it is so",
        "['a' ... 'b']",
        "\x00",
        "\u202e",
    ),
)
SETTINGS: tuple[dict[str, Any], ...] = (
    {}, {}, {"labels": []}, {"labels": ["yes", "no"]}, {"labels": {0: "no", 1: "yes"}}, {"answer_index": 1},
    {"labels": [True, False], "answer_index": 0}, {"on_bad_record": "skip"},
)  # fmt: skip


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(10 if depth < 3 else 6)
    if kind < 5:
        return rng.choice(TEXTS)
    if kind == 5:
        return rng.choice([0, 1, 2, -1, 3, 1.5, 1e300, 10**30, True, False, None])
    if kind < 8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    roles = ("user", "assistant", "system", "human", None, 3)
    return [{"role": rng.choice(roles), "content": value(rng, depth + 2)} for _ in range(rng.randrange(4))]


def check(record: Record) -> None:
    assert record.question.strip()
    assert not record.labels or record.answer in (*record.labels, None)
    assert len(record.context_labels) in (0, len(record.contexts))
    assert all(text.strip() for text in record.contexts)
    texts = (
        *record.contexts,
        *record.context_labels,
        *record.options.values(),
        *record.topics,
        record.long_answer,
    )
    "".join((record.question, *texts, record.answer or "")).encode()


def records_of(read: Callable[[], list[Record]]) -> list[Record] | None:
    """The records, or None if a one-line error that names the file refuses it."""
    try:
        return read()
    except InputError as error:
        said = str(error)
    check_message(said)
    assert "t.jsonl" in said
    return None


def test_any_values_in_any_columns_give_records_or_a_one_line_error(tmp_path: Path) -> None:
    rng, path, taken, refused = random.Random(0), tmp_path / "t.jsonl", 0, 0
    for _ in range(250):
        columns = ["question", *rng.sample(NAMES, rng.randrange(1, 5))]
        rows = [
            {name: f"Q {n}?" if name == "question" and rng.random() < 0.9 else value(rng) for name in columns}
            for n in range(rng.randrange(1, 4))
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        source = JSONLines(str(path), dev_fraction=0, **rng.choice(SETTINGS))
        for records in (
            records_of(lambda source=source: source.read().train),
            records_of(lambda: read_questions(str(path), "--q", ("yes", "no"))),
        ):
            refused += records is None
            taken += records is not None
            for record in records or ():
                check(record)
    assert taken > 50
    assert refused > 50
