"""Label scores of a loaded model for many questions, without generated text."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from medqlora.data import encode_all
from medqlora.errors import InputError
from medqlora.inference import Predictor
from medqlora.records import Prediction, Record
from medqlora.retrieval.verification import unfit_labels


class LabelScorer:
    """The labels, the calibration and the label scores of a `Predictor` (`verification.Predicts`).

    Args:
        predictor: a loaded model.
        option: what named it, for messages.

    Raises:
        InputError: it has no labels, or one that says nothing of a claim.
    """

    def __init__(self, predictor: Predictor, option: str = "--adapter") -> None:
        named = unfit_labels(predictor.labels)
        if named is not None:
            raise InputError(
                f"{option}: its labels say nothing of a claim ({named}): take one that answers yes, no or maybe, "
                "or supported, contradicted or not enough"
            )
        self.predictor = predictor
        self.labels = predictor.labels
        self.calibration = predictor.calibration

    def score_labels(self, records: Sequence[Record]) -> list[Prediction]:
        """Label log-likelihoods, in the order of `records`.

        Raises:
            InputError: a question is too long for the adapter's prompt.
        """
        if not records:
            return []
        one = self.predictor
        encoded = encode_all(
            records, one.prompt, one.tokenizer, one.max_prompt_tokens, progress=False, cached=False
        )
        one.check_examples(encoded)
        by_id = {record.id: record for record in records}
        with nullcontext() if one.autocast is None else torch.autocast(one.device.type, one.autocast):
            return one.current_evaluator().evaluate(encoded, by_id, write=False).predictions
