"""A record to encode, and what the tests of encoding do with it."""

from typing import Any

from medqlora.records import Record

LABELS = ("yes", "no", "maybe")
RECORD = Record(
    id="1",
    question="Do statins reduce the risk of atrial fibrillation?",
    contexts=("We enrolled 120 patients.", "The treatment group improved (p < 0.05)."),
    answer="yes",
    long_answer="Statins help, and it may be so.",
)


def with_(record: Record, **changes: object) -> Record:
    values = {name: getattr(record, name) for name in Record.__dataclass_fields__}
    return Record(**{**values, **changes})


def decoded(tokenizer: Any, ids: Any) -> str:
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
