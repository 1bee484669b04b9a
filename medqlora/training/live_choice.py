"""The choice of the live adapter's report that a merged model's test is compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from medqlora.artifacts.evaluated_weights import EvaluatedWeights
from medqlora.artifacts.live_report import (
    LivePredictions,
    LiveReport,
    find_live_report,
    read_live_report,
)
from medqlora.data.question_set import QuestionSet
from medqlora.errors import InputError
from medqlora.utils.console import say
from medqlora.utils.types import Tokenizer

_OPTION = "--report.live"


class HasSets(Protocol):
    """Data with the question sets of a test."""

    @property
    def sets(self) -> Sequence[QuestionSet]: ...


def chosen_live(
    named: str | None, weights: EvaluatedWeights, logs: Path, data: HasSets, tokenizer: Tokenizer
) -> LivePredictions | None:
    """The live adapter's predictions: of the report that was named, or of the newest one in the log folder.

    Args:
        named: --report.live.
        weights: that are tested.
        logs: the log folder.
        data: the question sets.
        tokenizer: the base model's.

    Raises:
        InputError: --report.live names no report, another adapter's, or one of other questions.
    """
    merged = weights.merged.adapter_sha256
    if named is not None:
        if weights.kind != "base":
            raise InputError(
                f"{_OPTION} {named}: it is for a merged model, and an adapter is tested: leave it out, or pass "
                "--model.adapter none with the merged model as --model.backend.base"
            )
        report = read_live_report(Path(named).expanduser(), _OPTION)
        check_same_adapter(report, merged, f"{_OPTION} {named}")
        try:
            return _on_sets(report, data, tokenizer)
        except InputError as error:
            raise InputError(f"{_OPTION}: {error}") from error
    if merged is None:
        return None
    found = find_live_report(logs, merged)
    if found is None:
        say(
            f"Note: {logs} holds no report of a test of the live adapter: test it too, or name its run folder with "
            f"{_OPTION}"
        )
        return None
    try:
        predictions = _on_sets(found, data, tokenizer)
    except InputError as error:
        say(f"Note: no comparison with the live adapter: {error}")
        return None
    say(f"Comparing with the live adapter's report in {found.folder}")
    return predictions


def check_same_adapter(report: LiveReport, merged: str | None, named: str) -> None:
    """Raises InputError for the report of another adapter than the one in the tested model.

    Args:
        report: the live adapter's.
        merged: digest of the adapter's weights in the tested model; None where it is not recorded.
        named: the option with its value, for the message.
    """
    if None not in (report.adapter_sha256, merged) and report.adapter_sha256 != merged:
        raise InputError(
            f"{named}: it is the report of another adapter than the one in the tested model: name that adapter's"
        )


def _on_sets(report: LiveReport, data: HasSets, tokenizer: Tokenizer) -> LivePredictions:
    by_set = {}
    for questions in data.sets:
        records = [questions.records[example.id] for example in questions.test]
        if records and all(record.labels for record in records):
            digest = questions.prompt.sha256(tokenizer)
            by_set[questions.source.name] = report.predictions(records, questions.source.name, digest)
    return LivePredictions(report.folder, by_set)
