"""`POST /v1/systemone`: typed decisions with probabilities, in the request and answer shapes of `transformers serve`.

transformers 5.23 (`transformers/cli/serving/systemone.py`, `transformers/decision/template_utils.py`): three types of
question about a state, `noul` (true or false), `choice` and `score`; `confidence` is the best probability above
chance, and for a score one minus the mean distance from the best level over that of a uniform distribution. There any
chat model reads a prompt made for it. Here the adapter reads its own: the state is the context, the instructions are
the question, the criteria are the options. `noul` is yes against no, at the adapter's temperature.
"""

import asyncio
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from medqlora.serving.engine import Done
from medqlora.serving.errors import ServiceError
from medqlora.serving.question import Call, Question
from medqlora.serving.routes.common import call_of, errors, example, service_of
from medqlora.serving.schemas import SystemOneRequest
from medqlora.serving.service import LIBRARY, Service
from medqlora.serving.streaming import while_connected
from medqlora.utils.types import Json

router = APIRouter()
_TYPES = ("noul", "choice", "score")
_FIELDS = {"type", "instructions", "criteria"}
#: begins the code of the error that is a fixed reply
SAFE_REPLY = "safe_reply:"
_MOST = len(string.ascii_uppercase)
_EXAMPLE: Json = {
    "model": "version_0",
    "answers": {
        "lower": {"type": "noul", "noul": 0.91},
        "design": {
            "type": "choice",
            "choice": "trial",
            "confidence": 0.8,
            "probabilities": {"trial": 0.9, "cohort": 0.1},
        },
    },
    "usage": {"input_tokens": 160, "output_tokens": 0},
    "medqlora": {
        "note": "Not medical advice; consult a healthcare professional.",
        "calibrated": {"lower": True, "design": False},
        "uncertain": {},
        "models": {"lower": "version_0", "design": "version_0"},
        "warnings": [],
    },
}


@dataclass(frozen=True)
class Typed:
    """One typed question.

    Attributes:
        type: noul, choice or score.
        instructions: the question's text.
        options: the answers, in the request's order.
        descriptions: of each option; None for none.
    """

    type: str
    instructions: str
    options: tuple[str, ...]
    descriptions: tuple[Json, ...]

    @classmethod
    def read(cls, name: str, given: Mapping[str, object]) -> "Typed":
        """Raises ServiceError, with the question's name and the fix."""
        kind = given.get("type")
        if kind not in _TYPES:
            raise _wrong(name, f"`type` must be one of {', '.join(_TYPES)}")
        if unknown := set(given) - _FIELDS:
            raise _wrong(name, f"there is no field {sorted(unknown)[0][:40]!r}")
        criteria = given.get("criteria")
        instructions = _text(given.get("instructions"))
        if kind == "noul":
            if criteria is not None and (not isinstance(criteria, dict) or set(criteria) - {"true", "false"}):
                raise _wrong(name, 'a noul question has criteria {"true": …, "false": …}, or none')
            listed = criteria if isinstance(criteria, dict) else {}
            return cls(str(kind), instructions, ("true", "false"), (listed.get("true"), listed.get("false")))
        shape = {"choice": dict, "score": list}[str(kind)]
        if not isinstance(criteria, shape) or not criteria:
            raise _wrong(name, f"a {kind} question needs `criteria` with its options")
        levels = (
            {} if isinstance(criteria, dict) else {str(level): text for level, text in enumerate(criteria)}
        )
        listed = criteria if isinstance(criteria, dict) else levels
        if len(listed) > _MOST:
            raise _wrong(name, f"at most {_MOST} options are read, and it has {len(listed)}")
        return cls(str(kind), instructions, tuple(map(str, listed)), tuple(listed.values()))

    def asked(self) -> tuple[str, dict[str, str], tuple[str, ...]]:
        """The question's text, its options and its decisions, as an adapter reads them."""
        if self.type == "noul":
            meant = [
                f"{label}: {_text(description)}"
                for label, description in zip(("Yes", "No"), self.descriptions, strict=True)
                if description is not None
            ]
            return " ".join([self.instructions, *meant]).strip(), {}, ("yes", "no")
        texts = {}
        for letter, option, description in zip(
            string.ascii_uppercase, self.options, self.descriptions, strict=False
        ):
            shown = _text(description)
            if self.type == "choice":
                shown = f"{option}: {shown}" if shown else option
            texts[letter] = shown or option
        return self.instructions, texts, tuple(texts)

    def answer(self, probabilities: Sequence[float]) -> dict[str, Json]:
        """The typed answer, from the probabilities of the options."""
        by_option = dict(zip(self.options, probabilities, strict=True))
        if self.type == "noul":
            return {"type": "noul", "noul": by_option["true"]}
        count = len(by_option)
        best = max(by_option, key=lambda option: by_option[option])
        shown: dict[str, Json] = dict(by_option)
        if self.type == "choice":
            chance = 1 / count
            confidence = 1.0 if count == 1 else max(0.0, (by_option[best] - chance) / (1 - chance))
            return {"type": "choice", "choice": best, "confidence": confidence, "probabilities": shown}
        distance = sum(value * abs(level - int(best)) for level, value in enumerate(probabilities))
        uniform = sum(abs(level - (count - 1) / 2) for level in range(count)) / count
        return {
            "type": "score",
            "score": sum(level * value for level, value in enumerate(probabilities)),
            "legend": dict(zip(self.options, self.descriptions, strict=True)),
            "confidence": 1.0 if count == 1 else max(0.0, 1 - distance / uniform),
            "probabilities": shown,
        }


@router.post("/v1/systemone", responses={**example(_EXAMPLE), **errors()}, summary="Typed decisions")
async def systemone(body: SystemOneRequest, request: Request) -> Response:
    """Answers every typed question about the state, without generating text.

    A question that calls for a fixed safety reply is refused with 422, whose message is that reply: a probability would
    be the wrong answer to it.
    """
    service, call = service_of(request), call_of(request, "/v1/systemone")
    typed = {name: Typed.read(name, given) for name, given in body.questions.items()}
    state = _text(body.state)
    questions: dict[str, Question] = {}
    for name, each in typed.items():
        text, options, labels = each.asked()
        if not text:
            raise _wrong(name, "`instructions` hold the question, and are empty")
        made = service.question(text, state, options, body.model)
        questions[name] = replace(made, labels=labels)
        reply = questions[name].reply()
        if reply is not None:
            service.refused(questions[name], reply, call, 422)
            raise ServiceError(
                422, f"{reply.text}\n\n{service.options.note}", code=f"{SAFE_REPLY}{reply.kind}"
            )
    found = await while_connected(request, _all(service, questions, call))
    answers: dict[str, Json] = {}
    for name, each in typed.items():
        probabilities = found[name].answer.probabilities
        labels = each.asked()[2]
        if set(labels) - set(probabilities):
            raise ServiceError(503, "the model's scores are not finite numbers")
        answers[name] = each.answer([probabilities[label] for label in labels])
    total = sum(done.prompt_tokens for done in found.values())
    models: dict[str, Json] = {name: question.model for name, question in questions.items()}
    # a library answers each question by the adapter of its topic
    model = LIBRARY if len(set(map(str, models.values()))) > 1 else next(iter(models.values()))
    warnings = [
        warning
        for name, done in found.items()
        for warning in (done.answer.warning, *service.warnings(questions[name], done))
        if warning
    ]
    extra: Json = {
        "note": service.options.note,
        "calibrated": {name: done.answer.calibrated for name, done in found.items()},
        "uncertain": {
            name: done.answer.reason for name, done in found.items() if done.answer.kind == "uncertain"
        },
        "models": models,
        "warnings": list(dict.fromkeys(map(str, warnings))),
    }
    usage: Json = {"input_tokens": total, "output_tokens": 0}
    return JSONResponse({"model": model, "answers": answers, "usage": usage, "medqlora": extra})


async def _all(service: Service, questions: Mapping[str, Question], call: Call) -> dict[str, Done]:
    """All answers; where one fails the others are given up."""
    tasks = [
        asyncio.ensure_future(
            service.answered(question, service.job(question, f"{call.request_id}-{number}"), call)
        )
        for number, question in enumerate(questions.values())
    ]
    try:
        return dict(zip(questions, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _text(value: object) -> str:
    """A text as it is, anything else as JSON, nothing as nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _wrong(name: str, what: str) -> ServiceError:
    return ServiceError(422, f"question {name[:80]!r}: {what}")
