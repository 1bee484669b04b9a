"""Balanced labels: weights in the loss, or as many questions of each label in an epoch."""

from collections import Counter
from collections.abc import Mapping, Sequence

from medqlora.errors import InputError
from medqlora.records import Encoded, Record

#: groups of prompt length within a label, where it is balanced too
_LENGTHS = 3


def class_weights(answers: Sequence[str]) -> dict[str, float]:
    """Label → N / (K · n) for N answers of which n have the label, and K labels that occur: the mean weight is 1.

    The "balanced" weights of King and Zeng, 2001, https://doi.org/10.1093/oxfordjournals.pan.a004868.
    """
    counts = Counter(answers)
    return {label: len(answers) / (len(counts) * count) for label, count in sorted(counts.items())}


def labels_of(examples: Sequence[Encoded], records: Mapping[str, Record], where: str) -> list[str]:
    """The answer of each example, to balance by.

    Raises:
        InputError: an example has a free answer, or all have the same.
    """
    answers = [records[example.id].answer for example in examples]
    free = sum(not example.labels for example in examples)
    if free:
        raise InputError(
            f"{where}: {free:,} of {len(examples):,} training questions have free answers, which no label balances: "
            "use none"
        )
    found = [str(answer) for answer in answers]
    if len(set(found)) < 2:
        raise InputError(f"{where}: every training question has the answer '{found[0]}': use none")
    return found


def weighted(
    examples: Sequence[Encoded], answers: Sequence[str], weights: Mapping[str, float]
) -> list[Encoded]:
    """The examples with the weight of their label."""
    return [
        example._replace(weight=weights[answer]) for example, answer in zip(examples, answers, strict=True)
    ]


def groups_of(
    examples: Sequence[Encoded], answers: Sequence[str], *, by_length: bool = False
) -> tuple[tuple[int, ...], ...]:
    """Indices of the examples by label, and within a label by length where asked: thirds of all prompt lengths.

    Groups without an example are left out.
    """
    lengths = sorted(len(example.prompt) for example in examples)
    bounds = [lengths[len(lengths) * part // _LENGTHS] for part in range(1, _LENGTHS)] if by_length else []
    groups: dict[tuple[str, int], list[int]] = {}
    for index, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        third = sum(len(example.prompt) >= bound for bound in bounds)
        groups.setdefault((answer, third), []).append(index)
    return tuple(tuple(groups[key]) for key in sorted(groups))


def describe_weights(answers: Sequence[str]) -> str:
    """One line on the weight of each label in the loss."""
    counts = Counter(answers)
    parts = [
        f"{label} {weight:.2f} (of {counts[label]:,})" for label, weight in class_weights(answers).items()
    ]
    return f"Balance: weights in the loss: {', '.join(parts)}"


def describe_sampling(groups: Sequence[Sequence[int]], answers: Sequence[str], drawn: int) -> str:
    """One line on how often a question of each label is drawn in an epoch of `drawn` questions."""
    counts, draws = Counter(answers), Counter[str]()
    for group in groups:
        draws[answers[group[0]]] += 1
    parts = [
        f"{label} {drawn * draws[label] / len(groups) / counts[label]:.2f} times" for label in sorted(counts)
    ]
    return f"Balance: {drawn:,} questions an epoch, each group as often; a question on average: {', '.join(parts)}"
