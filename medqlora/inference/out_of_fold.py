"""An ensemble on its members' validation questions: each is answered by the members that did not train on it."""

from collections.abc import Mapping, Sequence, Set
from typing import Protocol

from medqlora.inference.several import mean_log_probabilities
from medqlora.records import Encoded, Prediction, Record


class Scores(Protocol):
    """`SeveralAdapters.predict`."""

    def __call__(
        self, folder: str | None, records: Sequence[Record], examples: Mapping[str, Encoded] | None = None
    ) -> list[Prediction]: ...


def out_of_fold(
    predict: Scores,
    trained: Mapping[str, Set[str]],
    records: Sequence[Record],
    examples: Mapping[str, Encoded],
) -> list[Prediction]:
    """The mean log-probabilities of the members that a question was held out from; questions without one are left out.

    With the folds of one cross-validation that is one member a question; with several seeds of one split it is all.

    Args:
        predict: answers with a member.
        trained: member → ids of its training questions.
        records: the questions.
        examples: id → the encoded question.
    """
    answered: dict[str, list[Prediction]] = {}
    for member, ids in trained.items():
        own = [record for record in records if record.id not in ids]
        for prediction in predict(member, own, examples) if own else []:
            answered.setdefault(prediction.id, []).append(prediction)
    return [
        mean_log_probabilities([[one] for one in answered[record.id]])[0]
        for record in records
        if record.id in answered
    ]
