"""A record to encode, and what several tests of records do with it."""

import ast
import re
from typing import Any

from medqlora.data.tell_tale import reject_tell_tale
from medqlora.errors import InputError
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


def tell_tale_key(record: Record) -> str | None:
    """The key for which a set of this record alone is refused; None where it isn't."""
    try:
        reject_tell_tale([record])
    except InputError as error:
        key = re.search(r"under the key ('.*?'|\".*?\") \(1 of 1 records\)", str(error))
        return None if key is None else str(ast.literal_eval(key[1]))
    return None
