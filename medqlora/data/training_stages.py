"""Training in stages: one run over several training sets in order, each with its own epochs, rate and sampling."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from medqlora.config.data import DataOptions
from medqlora.config.stages import StageOptions
from medqlora.data.balance import (
    class_weights,
    describe_sampling,
    describe_weights,
    groups_of,
    labels_of,
    weighted,
)
from medqlora.data.batching.epochs import Part
from medqlora.data.checks import at, content, reject_shared_content
from medqlora.data.sources.source import Source
from medqlora.data.stages import read_stages
from medqlora.data.summary import describe
from medqlora.errors import InputError
from medqlora.records import Encoded, Record

Report = Callable[[str], None]
OPTION = "--data.stages"


@dataclass(frozen=True)
class TrainingStage(StageOptions):
    """One stage: its options with its source.

    Args:
        source: its training questions: a class_path; null for those of `data.source`.
    """

    source: Source | None = None

    def definition(self) -> dict[str, object]:
        """What decides its course, as plain values; files are known by the examples' digest."""
        fingerprint = {} if self.source is None else dict(self.source.fingerprint())
        files = fingerprint.pop("files", {})
        paths = files if isinstance(files, Mapping) else {}
        kept = {key: value for key, value in fingerprint.items() if str(value) not in paths}
        return {**asdict(replace(self, source=None)), "source": kept or None}


class TrainingSet(NamedTuple):
    """What a training in stages reads.

    Attributes:
        parts: the epochs of each stage.
        names: of the stages, for messages.
        records: id → record, of all stages.
    """

    parts: list[Part]
    names: list[str]
    records: dict[str, Record]


#: tokenizes the records of a source; returns them with the contexts that they are trained with
Encode = Callable[[Source, list[Record]], tuple[list[Record], list[Encoded]]]


def read_training_stages(
    stages: Sequence[TrainingStage],
    main: Source,
    splits: Mapping[str, list[Record]],
    options: DataOptions,
    encode: Encode,
    report: Report,
    held_out: Mapping[str, Sequence[Record]],
) -> TrainingSet:
    """Reads and checks the training sets of all stages.

    Args:
        stages: in their order.
        main: `data.source`.
        splits: its sets, as they are used.
        options: of the run.
        encode: tokenizes a stage's records.
        report: gets each line for the terminal.
        held_out: "validation" or "test" → all of its questions, which no stage may hold; also those that a sample or
            `topics` leaves out, since they are asked later.

    Raises:
        InputError: a stage has no questions, or one that is held out.
    """
    known = {record.id: record for part in splits.values() for record in part}
    result = TrainingSet([], [], {})
    for number, stage in enumerate(stages):
        source, name, where = stage.source or main, stage_name(stage, main), f"{OPTION}[{number}]"
        records = splits["train"]
        if stage.source is not None:
            allowed = options.allow_test_questions
            records = read_stages(source, ("train",), report, allow_test_questions=allowed).train
            _reject_held_out(name, records, held_out)
            records = _distinct(name, records, known)
        if not records:
            raise InputError(f"{where}.source: {source.name} has no train records: check its options")
        known.update((record.id, record) for record in records)
        records, encoded = encode(source, records)
        result.records.update((record.id, record) for record in records)
        report(describe(source.name, "train", records, encoded))
        part = balanced_part(
            encoded, result.records, options, where=f"{where}.sampling", report=report, stage=stage
        )
        report(_describe(number + 1, len(stages), stage, name, part))
        result.parts.append(part)
        result.names.append(name)
    return result


def balanced_part(
    examples: Sequence[Encoded],
    records: Mapping[str, Record],
    options: DataOptions,
    *,
    where: str,
    report: Report,
    stage: TrainingStage | None = None,
) -> Part:
    """The part of a run's epochs over `examples`, with weights, smoothing and groups as the options say.

    Args:
        examples: tokenized.
        records: id → record.
        options: of the run.
        where: option that asks for it, for messages.
        report: gets a line on the balance.
        stage: whose `sampling` decides over `balance`; None without stages.

    Raises:
        InputError: the labels can't be balanced.
    """
    balance, smoothing = options.balance, options.label_smoothing
    listed = [example._replace(smoothing=smoothing) if smoothing else example for example in examples]
    sampling = None if stage is None else stage.sampling
    if sampling is None:
        sampling = "label" if balance == "sampling" else "natural"
        if stage is not None and not all(example.labels for example in listed):
            sampling, balance = "natural", "none"  # free answers of a stage have no label
    groups = None
    if sampling != "natural":
        answers = labels_of(listed, records, where)
        groups = groups_of(listed, answers, by_length=sampling == "label_length")
        drawn = None if stage is None else stage.samples
        report(describe_sampling(groups, answers, drawn or len(listed)))
        balance = "none"  # once is enough
    if balance == "loss":
        answers = labels_of(listed, records, where)
        listed = weighted(listed, answers, class_weights(answers))
        report(describe_weights(answers))
    if stage is None:
        return Part(listed, groups=groups)
    return Part(listed, stage.epochs, groups, stage.samples)


def check_stages(stages: Sequence[TrainingStage]) -> None:
    """Raises InputError for stages that no data make right."""
    for number, stage in enumerate(stages):
        stage.check(f"{OPTION}[{number}]")


def stage_name(stage: TrainingStage, source: Source) -> str:
    """The name of a stage in messages."""
    return stage.name or (source if stage.source is None else stage.source).name


def _reject_held_out(name: str, records: Sequence[Record], held_out: Mapping[str, Sequence[Record]]) -> None:
    """Rejects validation and test questions of `data.source` in a stage, by their texts or by id and question.

    Raises:
        InputError: names the first.
    """
    for kind, held in held_out.items():
        reject_shared_content({f"{OPTION} {name}": records}, held, kind)
        by_id = {(record.id, content(record)[0]): record for record in held}
        for record in records:
            twin = by_id.get((record.id, content(record)[0]))
            if twin is not None:
                raise InputError(
                    f"{at(record)}: stage {name} trains on the question {record.id}, which {at(twin)} holds in the "
                    f"{kind} set: remove it, or its score means nothing"
                )


def _distinct(name: str, records: Sequence[Record], known: Mapping[str, Record]) -> list[Record]:
    """The records, with the stage's name before an id that another question has already."""
    return [
        replace(record, id=f"{name}/{record.id}", aliases=(*record.aliases, record.id))
        if record.id in known and content(known[record.id]) != content(record)
        else record
        for record in records
    ]


def _describe(number: int, count: int, stage: TrainingStage, name: str, part: Part) -> str:
    """One line on a stage."""
    parts = [f"{stage.epochs} epoch{'s' if stage.epochs > 1 else ''} of {part.count:,} questions"]
    if stage.learning_rate is not None:
        parts.append(f"rate {stage.learning_rate:g}")
    if stage.sampling is not None:
        parts.append(f"sampling {stage.sampling}")
    return f"Stage {number} of {count}, {name}: {', '.join(parts)}"
