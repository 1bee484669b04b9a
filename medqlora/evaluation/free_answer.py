"""Questions without labels: the answer is a text, and only its wording can be compared."""

import re
from collections.abc import Sequence
from typing import Any

from medqlora.evaluation.rouge import rouge_l
from medqlora.evaluation.statistics import wilson_interval
from medqlora.records import Prediction, Record


def exactly_matches(text: str, answer: str) -> bool:
    """Whether both have the same letters and digits in the same words, in any case."""
    return re.findall(r"\w+", text.casefold()) == re.findall(r"\w+", answer.casefold())


def free_answer_scores(
    predictions: Sequence[Prediction], records: Sequence[Record] | None, base: Sequence[Prediction] | None
) -> dict[str, Any]:
    """The fields of `Scores` for free answers: exact match as accuracy, ROUGE-L beside it, the rest None.

    Neither says whether an answer is right: another wording of a right answer counts as wrong, and a text
    that differs by one "not" is nearly alike. The report says so.

    Raises:
        ValueError: nothing was generated.
    """
    if predictions[0].text is None:
        raise ValueError("free answers can only be scored by generating them: nothing was generated")
    block = _block(predictions)
    base_block = None
    if base is not None:
        from medqlora.evaluation.paired import mcnemar_exact, paired_difference_interval

        base_block = _block(base)
        pairs = list(zip(_matches(predictions), _matches(base), strict=True))
        counts = [pairs.count(one) for one in ((True, True), (True, False), (False, True), (False, False))]
        base_block["difference"] = block["accuracy"] - base_block["accuracy"]
        base_block["difference_ci95"] = list(paired_difference_interval(*counts))
        base_block["mcnemar_p"] = mcnemar_exact(counts[1], counts[2])
    rouge = block.pop("rouge_l")
    topics: list[dict[str, Any]] = []
    unknown = (
        "macro_f1 macro_f1_ci95 per_class confusion_matrix ece brier nll aurc majority_accuracy human_accuracy "
        "unparsed_fraction"
    )
    return {
        **block,
        **dict.fromkeys(unknown.split()),
        "decided_by": "exact_match",
        "base": base_block,
        "mcnemar_p": None if base_block is None else base_block["mcnemar_p"],
        "by_topic": topics,
        "more": {
            "rouge_l": rouge,
            "note": "free answers: exact match and overlap of wording (ROUGE-L); neither judges what is said",
        },
    }


def _matches(predictions: Sequence[Prediction]) -> list[bool]:
    return [exactly_matches(one.text or "", str(one.gold)) for one in predictions]


def _block(predictions: Sequence[Prediction]) -> dict[str, Any]:
    matches, n = sum(_matches(predictions)), len(predictions)
    return {
        "n": n,
        "accuracy": matches / n,
        "accuracy_ci95": list(wilson_interval(matches, n)),
        "rouge_l": sum(rouge_l(one.text or "", str(one.gold)) for one in predictions) / n,
    }
