"""What a run's folder says of a run, to compare it with others: settings, curves, costs, and its test's answers."""

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from medqlora.artifacts.fold_group import FoldGroup
from medqlora.artifacts.run_folder import RunFolder
from medqlora.artifacts.runs import finite_scores
from medqlora.errors import InputError
from medqlora.models.weight_files import ADAPTER_WEIGHTS
from medqlora.utils.digests import file_digest, text_digest

#: options that say where a run lies, not what it is
_PLACES = ("trainer.default_root_dir", "ckpt_path", "config", "model.adapter")
_OPTION = "RUN"


class Decided(NamedTuple):
    """An answer of a test: the right one, and the decision; None where nothing could be read.

    `question` is the SHA-256 of its text; None where the file has none.
    """

    gold: str
    decision: str | None
    question: str | None = None


@dataclass(frozen=True)
class RunSummary:
    """A run.

    Attributes:
        name: its folder.
        kind: fit, test or cross-validation.
        settings: option → value, as texts.
        curves: tag → (step, value).
        cost: name with its unit → value.
        best: the best validation scores, by name.
        dataset: what `answers` are to; None without any.
        answers: id → decision, of the newest test of its adapter, or out of fold.
        tested: the folder with them.
    """

    name: str
    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    dataset: str | None = None
    answers: Mapping[str, Decided] = field(default_factory=dict)
    tested: str | None = None


def summarize(given: str) -> RunSummary:
    """The summary of a run's folder, of its adapter's, or of a cross-validation's.

    Raises:
        InputError: there is no such run.
    """
    path = Path(given).expanduser()
    if not path.is_dir():
        raise InputError(
            f"{_OPTION} {given}: there is no such folder: name a run's, as lightning_logs/version_0"
        )
    if FoldGroup(path).is_group:
        return _of_group(FoldGroup(path))
    run = RunFolder(path.parent if path.name == "adapter" else path)
    if run.test_report.is_file():
        return _of_test(run)
    if not run.config.is_file() and run.read_record() is None:
        raise InputError(
            f"{_OPTION} {given}: it holds no config.yaml, run.json or test_report.json: name a run's folder, as "
            "lightning_logs/version_0"
        )
    curves = _curves(run.path)
    found = RunSummary(
        str(run.path),
        "fit",
        _settings(run),
        curves,
        _cost(run, curves),
        finite_scores((run.read_record() or {}).get("best")),
    )
    test = _test_of(run)
    if test is None:
        return found
    dataset, answers = _answers(test)
    return replace(found, dataset=dataset, answers=answers, tested=str(test.path))


def _of_test(run: RunFolder) -> RunSummary:
    """A test; settings, curves and costs are those of the run that trained its adapter, where that is known."""
    dataset, answers = _answers(run)
    named = _json(run.test_report).get("adapter")
    trained = RunFolder(Path(str(named)).expanduser().parent)
    found = RunSummary(str(run.path), "test", dataset=dataset, answers=answers, tested=str(run.path))
    if not isinstance(named, str) or trained.read_record() is None:
        return found
    curves = _curves(trained.path)
    return replace(
        found,
        settings=_settings(trained),
        curves=curves,
        cost=_cost(trained, curves),
        best=finite_scores((trained.read_record() or {}).get("best")),
    )


def _of_group(group: FoldGroup) -> RunSummary:
    record = group.record(_OPTION)
    runs = [group.run(fold) for fold in record.folds if group.is_finished(fold)]
    settings = {**(_settings(runs[0]) if runs else {}), "folds": ",".join(map(str, record.folds))}
    settings.pop("data.source.init_args.fold", None)
    costs = [_cost(run, _curves(run.path)) for run in runs]
    names = dict.fromkeys(name for cost in costs for name in cost)
    total = {}
    for name in names:
        values = [cost[name] for cost in costs if name in cost]
        of_all = max(values) if name.startswith("peak") else sum(values)
        total[name] = of_all / len(values) if name == "tokens a second" else of_all
    answers: dict[str, Decided] = {}
    for fold in record.folds:
        for line in _json_lines(group.out_of_fold(fold))[1:]:
            labels, scores = line.get("labels"), line.get("logprobs")
            if isinstance(labels, list) and isinstance(scores, list) and labels:
                best = max(range(len(scores)), key=scores.__getitem__)
                answers[str(line.get("id"))] = Decided(
                    str(line.get("gold")),
                    str(labels[best]),
                    None if line.get("question_sha256") is None else str(line["question_sha256"]),
                )
    return RunSummary(
        str(group.path),
        "cross-validation",
        settings,
        cost=total,
        dataset="out of fold" if answers else None,
        answers=answers,
        tested=str(group.path),
    )


def _settings(run: RunFolder) -> dict[str, str]:
    """The options of config.yaml, flattened, and what the adapter's record says of base model, data and prompt."""
    import yaml

    found: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        _flatten("", yaml.safe_load(run.config.read_text(encoding="utf-8")), found)
    for name in _PLACES:
        found.pop(name, None)
    record = _record(run)
    for key, part in (("base_identity", None), ("prompt", "sha256"), ("data", "train_questions")):
        value = record.get(key)
        value = value.get(part) if part is not None and isinstance(value, Mapping) else value
        if value is not None:
            found[f"{key}, {part}" if part else key] = str(value)
    return found


def _flatten(prefix: str, value: object, found: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            _flatten(f"{prefix}.{name}".lstrip("."), part, found)
    elif prefix:
        found[prefix] = "null" if value is None else str(value)


def _record(run: RunFolder) -> Mapping[str, object]:
    """The adapter's record, unchecked; {} without one."""
    try:
        found = json.loads((run.adapter / "medqlora.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of the run's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not RunFolder(run).events():
        return {}
    events = EventAccumulator(str(run), size_guidance={"scalars": 2000})
    try:
        events.Reload()
    except (OSError, ValueError):
        return {}
    points = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return {tag: [point for point in curve if math.isfinite(point[1])] for tag, curve in points.items()}


def _cost(run: RunFolder, curves: Mapping[str, list[tuple[int, float]]]) -> dict[str, float]:
    """Time, tokens and memory of a fit, as far as they are recorded."""

    def last(tag: str) -> float | None:
        return curves[tag][-1][1] if curves.get(tag) else None

    cost: dict[str, float] = {}
    record = run.read_record() or {}
    try:
        began, ended = (datetime.fromisoformat(str(record[key])) for key in ("started", "finished"))
        cost["wall clock, s"] = (ended - began).total_seconds()
    except (KeyError, ValueError, TypeError):
        pass
    speed, step_s = last("x-speed/run_tokens_per_s"), last("x-speed/run_step_s")
    steps = curves["train/loss"][-1][0] + 1 if curves.get("train/loss") else None
    if speed is not None:
        cost["tokens a second"] = speed
    if speed is not None and step_s is not None and steps is not None:
        cost["training tokens (of one process)"] = speed * step_s * steps
    peaks = {tag: value for tag in curves if "/peak" in tag and (value := last(tag)) is not None}
    device = [value for tag, value in peaks.items() if tag.endswith(("peak_gib", "peak_reserved_gib"))]
    host = [value for tag, value in peaks.items() if tag.endswith("peak_resident_gib")]
    if device or host:
        cost["peak memory, GiB"] = max(device or host)
    return cost


def _test_of(run: RunFolder) -> RunFolder | None:
    """The newest test of the run's adapter beside the run; None where there is none."""
    weights = run.adapter / ADAPTER_WEIGHTS
    digest = None
    try:
        beside = RunFolder.all(run.path.parent)
    except OSError:
        return None
    for other in sorted(beside, key=lambda one: -one.number):
        report = _json(other.test_report)
        named, recorded = report.get("adapter"), report.get("adapter_sha256")
        if isinstance(named, str) and Path(named).expanduser().resolve() == run.adapter.resolve():
            return other
        if isinstance(recorded, str) and weights.is_file():
            digest = digest or str(file_digest(weights)["sha256"])
            if recorded == digest:
                return other
    return None


def test_figures(adapter: Path) -> dict[str, object]:
    """The figures of the newest test of an adapter that lies beside its run; {} without one."""
    test = _test_of(RunFolder(adapter.parent)) if adapter.name == "adapter" else None
    if test is None:
        return {}
    report = _json(test.test_report)
    kept = ("dataset", "split", "n", "accuracy", "accuracy_ci95", "macro_f1")
    return {**{key: report[key] for key in kept if report.get(key) is not None}, "report": str(test.path)}


def _answers(run: RunFolder) -> tuple[str, dict[str, Decided]]:
    """The set and the decisions of a test."""
    report = _json(run.test_report)
    found = {
        str(line["id"]): Decided(
            str(line["gold"]),
            None if line.get("decision") is None else str(line["decision"]),
            None if line.get("question") is None else text_digest(str(line["question"])),
        )
        for line in _json_lines(run.predictions())
        if "id" in line
        and "decision" in line  # free answers have none
        and line.get("gold") is not None
        and line.get("dataset") in (None, report.get("dataset"))
    }
    return f"{report.get('dataset')}, {report.get('split')}", found


def _json(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _json_lines(file: Path) -> list[dict[str, object]]:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError):
        return []
    return [line for line in lines if isinstance(line, dict)]
