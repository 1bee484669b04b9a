"""`verify` of a request: the claims of an answer's text against the answer's own sources, scored by the model."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from medqlora.inference.answer import Answer
from medqlora.records import Prediction, Record
from medqlora.retrieval.citations import CitedAnswer
from medqlora.retrieval.claims import split_claims
from medqlora.retrieval.verification import ClaimCheck
from medqlora.serving.errors import ServiceError


async def verified(
    cited: CitedAnswer,
    labels: tuple[str, ...],
    prefix: str,
    score: Callable[[Record], Awaitable[Answer]],
    *,
    at_once: int = 8,
) -> CitedAnswer:
    """The answer with the verdict of its sources on each claim of its text, as `ask --verify` gives it.

    Args:
        cited: an answer with its passages.
        labels: the model's, each of which says something of a claim.
        prefix: of the ids of the questions.
        score: the answer to a question by the labels alone.
        at_once: scores that are under way at once.

    Raises:
        ServiceError: a score is no finite number.
    """
    claims = [claim.text for claim in split_claims(cited.answer.rationale)]
    check = ClaimCheck(claims, [cited.hits] * len(claims), labels, relevant=0.0)
    slots = asyncio.Semaphore(at_once)

    async def scored(record: Record) -> Prediction:
        async with slots:
            answer = await score(replace(record, id=f"{prefix}-{record.id}"))
        if not set(labels) <= set(answer.probabilities):
            raise ServiceError(503, "verify: the model's scores are not finite numbers")
        # calibrated already; the softmax of their logarithms gives them back
        logprobs = [math.log(max(answer.probabilities[label], 1e-30)) for label in labels]
        return Prediction(record.id, None, labels, tuple(logprobs), (1,) * len(labels))

    predictions = await _together([scored(record) for record in check.records])
    return replace(cited, claims=tuple(verdict.to_json() for verdict in check.verdicts(predictions)))


async def _together(work: Sequence[Awaitable[Prediction]]) -> list[Prediction]:
    """All results, in order; where one fails, or the caller leaves, none goes on."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
