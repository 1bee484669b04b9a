"""The live adapter's test report, as the paired comparison of a merged or exported model's test."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeGuard

from medqlora.artifacts.run_folder import TEST_REPORT, RunFolder
from medqlora.errors import InputError
from medqlora.models.weight_files import ADAPTER_WEIGHTS
from medqlora.records import Prediction, Record
from medqlora.utils.digests import file_digest

#: key of a test report, and of a merged model's record: digest of the adapter's weights
ADAPTER_SHA256 = "adapter_sha256"


class LivePredictions(NamedTuple):
    """The live adapter's predictions on the questions that a merged model is tested on.

    Attributes:
        folder: the run folder of its test.
        by_set: name of the question set → one prediction a question.
    """

    folder: Path
    by_set: Mapping[str, Sequence[Prediction]]


@dataclass(frozen=True)
class LiveReport:
    """What a test of the live adapter has left.

    Attributes:
        folder: the test's run folder.
        prompt_sha256: digest of the prompt's template; None where the report has none.
        adapter_sha256: digest of the tested adapter's weights; None where it is not known.
        lines: of predictions.jsonl.
    """

    folder: Path
    prompt_sha256: str | None
    adapter_sha256: str | None
    lines: Sequence[Mapping[str, object]]

    def predictions(
        self, records: Sequence[Record], dataset: str | None, prompt_sha256: str | None
    ) -> list[Prediction]:
        """The live adapter's label log-likelihoods, in the order of `records`.

        Args:
            records: the questions, with labels.
            dataset: name of the question set, where the report has several.
            prompt_sha256: digest of the prompt that they are asked with.

        Raises:
            InputError: the report is of other questions, or of another prompt.
        """
        if None not in (prompt_sha256, self.prompt_sha256) and prompt_sha256 != self.prompt_sha256:
            raise InputError(
                f"the live adapter's report in {self.folder} was asked with another prompt: test the adapter again, "
                "with this one"
            )
        by_id = {line.get("id"): line for line in self.lines if line.get("dataset") in (None, dataset)}
        found = []
        for record in records:
            scores = by_id.get(record.id, {}).get("logprobs")
            if not _is_scores(scores) or tuple(scores) != record.labels:
                raise InputError(
                    f"the live adapter's report in {self.folder} has no label scores of question {record.id}: test the "
                    "adapter on the same questions"
                )
            found.append(Prediction(record.id, record.answer, record.labels, tuple(scores.values())))
        return found


def read_live_report(path: Path, option: str) -> LiveReport:
    """The report of a test's run folder.

    Args:
        path: the folder, or its test_report.json.
        option: what named it, for messages.

    Raises:
        InputError: there is no report of an adapter's test.
    """
    folder = path.parent if path.name == TEST_REPORT else path
    run = RunFolder(folder)
    try:
        report = _report(run)
        lines = [json.loads(line) for line in run.predictions().read_text("utf-8").splitlines() if line]
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise InputError(
            f"{option}: {folder} holds no test report ({reason}): name the run folder of a `medqlora test` of the live "
            "adapter"
        ) from error
    if not all(isinstance(line, dict) for line in lines):
        raise InputError(f"{option}: {folder}: its predictions are damaged: test the adapter again")
    if "live" in report:
        raise InputError(
            f"{option}: {folder} holds the test report of an exported model: name that of the live adapter"
        )
    prompt = report.get("prompt_sha256")
    return LiveReport(folder, prompt if isinstance(prompt, str) else None, _digest(report), lines)


def find_live_report(logs: Path, adapter_sha256: str) -> LiveReport | None:
    """The newest test report under a log folder whose adapter has these weights; None without one."""
    try:
        runs = sorted(RunFolder.all(logs), key=lambda run: -run.number)
    except OSError:
        return None
    return next(filter(None, (_of_adapter(run, adapter_sha256) for run in runs)), None)


def _of_adapter(run: RunFolder, adapter_sha256: str) -> LiveReport | None:
    """The run's report where it is of this adapter; None for another one, and for one that can't be read."""
    try:
        return read_live_report(run.path, "") if _digest(_report(run)) == adapter_sha256 else None
    except (OSError, ValueError, RecursionError, InputError):
        return None


def _report(run: RunFolder) -> dict[str, object]:
    """Raises OSError or ValueError for a report that is missing or damaged."""
    report = json.loads(run.test_report.read_text("utf-8"))
    if not isinstance(report, dict):
        raise ValueError("it is no object")
    return report


def _digest(report: Mapping[str, object]) -> str | None:
    """Of the tested adapter's weights; in a report that is older than the key, of the file if it is still there."""
    digest, adapter = report.get(ADAPTER_SHA256), report.get("adapter")
    if isinstance(digest, str):
        return digest
    file = Path(str(adapter)).expanduser() / ADAPTER_WEIGHTS
    return file_digest(file)["sha256"] if isinstance(adapter, str) and file.is_file() else None


def _is_scores(value: object) -> TypeGuard[dict[str, float]]:
    return isinstance(value, dict) and all(isinstance(number, float) for number in value.values())
