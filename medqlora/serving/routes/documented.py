"""The fields of replies, for the OpenAPI document: FastAPI leaves the empty ones out of examples."""

from typing import Any

Schema = dict[str, Any]


def _one(kind: str, description: str = "", *, empty: bool = False) -> Schema:
    found: Schema = {"type": [kind, "null"] if empty else kind}
    return {**found, "description": description} if description else found


_ALWAYS: Schema = {
    "id": _one("string"),
    "question": _one("string"),
    "kind": {"type": "string", "enum": ["answer", "uncertain", "safe_reply"]},
    "decision": _one(
        "string", 'a label, or "uncertain"; empty for free answers and fixed replies', empty=True
    ),
    "leaning": _one("string", "the likeliest label of an uncertain answer", empty=True),
    "option_text": _one("string", "the text of the option that is decided or leant to", empty=True),
    "confidence": _one("number", "probability of the likeliest label", empty=True),
    "probabilities": _one("object", "label → probability", empty=True),
    "calibrated": _one("boolean"),
    "calibrated_on": _one("integer", "validation questions of the calibration", empty=True),
    "caution": _one("string", "why the confidence is not calibrated", empty=True),
    "warning": _one("string", "that the adapter was trained on invented data", empty=True),
    "rationale": _one("string"),
    "reason": _one("string", "why the answer is uncertain", empty=True),
    "reply": _one("object", "the fixed reply in place of an answer: `kind` and `text`", empty=True),
    "note": _one("string", "ends every answer"),
    "text": _one("string", "the answer as paragraphs, with warning and note"),
    "model": _one("string", "the model that answered; with a library the one that it chose"),
    "threshold": _one("number", "least confidence of an answer, of that model", empty=True),
    "sources": {"type": "array", "items": {"type": "object"}, "description": "passages of the index"},
    "warnings": {"type": "array", "items": {"type": "string"}},
    "usage": _one("object"),
}
_SOMETIMES: Schema = {
    "removed_sources": {
        "type": "array",
        "items": {"type": "string"},
        "description": "with an index: what the rationale named and was not given",
    },
    "claims": {
        "type": "array",
        "items": {"type": "object"},
        "description": "with `verify`: `claim`, `verdict`, `confidence`, `conflicting`, `passages`",
    },
    "contradicted": _one("boolean", "with `verify`: whether a source contradicts a claim"),
}
#: the reply of `POST /v1/answer`
ANSWER: Schema = {"type": "object", "properties": {**_ALWAYS, **_SOMETIMES}, "required": list(_ALWAYS)}
#: that of the chat, as far as OpenAI's documentation does not have it
CHAT: Schema = {
    "type": "object",
    "properties": {
        "medqlora": {
            "type": "object",
            "properties": {**ANSWER["properties"], "ignored_messages": _one("integer")},
            "required": [*_ALWAYS, "ignored_messages"],
        }
    },
    "required": ["medqlora"],
}
