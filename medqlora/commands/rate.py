"""`medqlora rate build|score`: human rating of two models' answers, blinded."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.utils.cache import why_not_writable
from medqlora.utils.files import write_text

if TYPE_CHECKING:
    from medqlora.evaluation.rating import RatingItem, RatingScores
    from medqlora.records import Record

COMMAND = Command("rate", "human rating of two models' answers, blinded", rank=58)

_EXAMPLES = """examples:
  medqlora rate build --adapter lightning_logs/version_0 --against base --questions questions.jsonl --out rating
  medqlora rate score rating/ratings-*.json --key rating/key.json --report lightning_logs/version_1/report.html

`build` answers the questions with both models and writes rating.html, which raters open in a browser, without a
network, and key.json, which they must not see. `score` reads the files that they export.
"""
#: file names of a rating's folder
PAGE, KEY, SCORES = "rating.html", "key.json", "rating_scores.json"


def parser(verb: str = "") -> argparse.ArgumentParser:
    """The options of `build` or `score`; without a verb, the help of both."""
    if verb == "build":
        made = Parser(
            "rate build", "Writes a blinded page on which two models' answers are rated.", _EXAMPLES
        )
        made.add_argument(
            "--adapter", required=True, metavar="DIR", help="adapter folder, or the folder of its run"
        )
        made.add_argument(
            "--against",
            default="base",
            metavar="base|DIR",
            help="the base model without an adapter, or another adapter on it (default: %(default)s)",
        )
        made.add_argument(
            "--questions", required=True, metavar="FILE", help="questions, in any form that `predict` reads"
        )
        made.add_argument(
            "--out", required=True, metavar="DIR", help="folder to write; new, or without a rating"
        )
        made.add_argument("--limit", type=int, metavar="N", help="rate the first N questions alone")
        made.add_argument("--seed", type=int, default=0, help="of the drawn order (default: %(default)s)")
        made.add_argument("--base", help="the base model, where it differs from the adapter's record")
        made.add_argument("--device", default="auto", help="the device to run on (default: %(default)s)")
        made.add_argument(
            "--max_new_tokens",
            type=int,
            default=96,
            help="length limit of a text, in tokens (default: %(default)s)",
        )
        return made
    if verb == "score":
        made = Parser("rate score", "Scores the files that raters exported.", _EXAMPLES)
        made.add_argument("files", nargs="+", metavar="FILE", help="exports of the page, one per rater")
        made.add_argument("--key", required=True, metavar="FILE", help="the key.json of `rate build`")
        made.add_argument(
            "--out", metavar="FILE", help="where to write the figures (default: beside the key)"
        )
        made.add_argument(
            "--report", metavar="FILE", help="a run's report.html, which gets a section of them"
        )
        return made
    made = Parser("rate", "Human rating of two models' answers, blinded.", _EXAMPLES)
    made.add_argument("verb", choices=("build", "score"), help="what to do; each has its own --help")
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, or files that can't be read."""
    if not words or words[0] not in ("build", "score"):
        parser().parse_args(words)
        return 0
    options = parser(words[0]).parse_args(words[1:])
    return _build(options) if words[0] == "build" else _score(options)


def _build(options: argparse.Namespace) -> int:
    out = Path(options.out).expanduser()
    for name, least in (("limit", 1), ("max_new_tokens", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}: it has to be at least {least}")
    if any((out / name).exists() for name in (PAGE, KEY)):
        raise InputError(f"--out {options.out}: there is a rating already: give another folder")
    if why := why_not_writable(out):
        raise InputError(f"--out {options.out}: can't be written ({why}): give another folder")
    if not Path(options.questions).expanduser().exists():
        raise InputError(f"--questions: there is no file {options.questions}: check the path")
    from medqlora.data import read_questions
    from medqlora.evaluation.rating import build_page
    from medqlora.models.adapters import find_adapter, read_adapter
    from medqlora.safety import screen

    first = _name(options.adapter)
    second = "base" if options.against == "base" else _name(options.against)
    if first == second:
        first, second = f"{first} (adapter)", f"{second} (against)"
    adapters = {first: find_adapter(options.adapter, "--adapter")[0]}
    labels = read_adapter(adapters[first], "--adapter").get("labels") or ("yes", "no", "maybe")
    if options.against != "base":
        adapters[second] = find_adapter(options.against, "--against")[0]
        read_adapter(adapters[second], "--against")
    assert isinstance(labels, (list, tuple))
    records = read_questions(options.questions, "--questions", [str(label) for label in labels])
    asked = [record for record in records if screen(record.question) is None][: options.limit]
    if len(asked) < len(records):
        print(
            f"{len(asked)} of {len(records)} questions (others get a fixed reply, or are past --limit)",
            flush=True,
        )
    if not asked:
        raise InputError(f"--questions {options.questions}: no question is left to rate: give others")
    items = _answered(options, adapters, (first, second), asked)
    page, key = build_page(items, (first, second), options.seed)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / KEY, json.dumps(key.to_json(), indent=1) + "\n")
    write_text(out / PAGE, page)
    print(f"For raters:     {out / PAGE}\nNot for raters: {out / KEY}", flush=True)
    return 0


def _answered(
    options: argparse.Namespace,
    adapters: dict[str, str],
    systems: tuple[str, str],
    records: "Sequence[Record]",
) -> "list[RatingItem]":
    """Both models' answers; the adapters share one loaded base model."""
    from medqlora.evaluation.rating import RatingItem
    from medqlora.safety import NOTE
    from medqlora.serving.engine import BASE, Done, EngineSpec, Event, Failed, Inbox, Job
    from medqlora.serving.engines.local import LocalEngine

    spec = EngineSpec(
        engine="local",
        adapters=adapters,
        base=options.base,
        backend=None,
        device=options.device,
        note=NOTE,
        max_new_tokens=options.max_new_tokens,
        batch_tokens=8192,
        rows=16,
    )
    engine, inbox = LocalEngine.start(spec), Inbox()
    jobs = {}
    for number, record in enumerate(records):
        for system in systems:
            model = BASE if system not in adapters else system
            jobs[f"{number} {system}"] = (number, system)
            inbox.put(Job(f"{number} {system}", model, record, max_new_tokens=options.max_new_tokens))
    texts: list[dict[str, str]] = [{} for _ in records]

    def emit(events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Failed):
                raise InputError(f"--questions {options.questions}: {event.message}")
            if isinstance(event, Done):
                number, system = jobs[event.id]
                answer = event.answer
                # without confidence and "uncertain": the base model has no calibration, and would be known by it
                decision = answer.leaning or answer.decision
                named = f"{decision}: {answer.option_text}" if answer.option_text else decision
                texts[number][system] = "\n\n".join(part for part in (named, answer.rationale) if part)

    while len(inbox) or engine.busy:
        engine.work(inbox, emit)
    return [
        RatingItem(record.id, record.question, record.contexts, answers)
        for record, answers in zip(records, texts, strict=True)
    ]


def _score(options: argparse.Namespace) -> int:
    from medqlora.evaluation.rating import read_key, read_ratings, score_ratings
    from medqlora.evaluation.rating.pages import with_section

    key = read_key(options.key)
    report = None if options.report is None else Path(options.report).expanduser()
    page = None if report is None else _report(report)
    rated = {}
    for path in options.files:
        rater, ratings = read_ratings(path, key.page, list(key.orders))
        if rater in rated:
            raise InputError(f"{path}: a second file of the rater {rater!r}: pass one per rater")
        rated[rater] = ratings
    scores = score_ratings(key.systems, key.orders, rated)
    out = Path(options.out or Path(options.key).with_name(SCORES)).expanduser()
    try:
        write_text(out, json.dumps(scores.to_json(), indent=2, allow_nan=False) + "\n")
        if report is not None and page is not None:
            write_text(report, with_section(page, scores))
    except OSError as error:
        raise InputError(
            f"{error.filename or out}: can't be written ({error.strerror}): pass --out FILE"
        ) from error
    _show(scores)
    print(f"Figures: {out}" + ("" if report is None else f"; section in {report}"), flush=True)
    return 0


def _report(path: Path) -> str:
    try:
        page = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise InputError(f"--report {path}: can't be read ({reason}): pass a run's report.html") from error
    if "</main>" not in page:
        raise InputError(f"--report {path}: no page of a report: pass a run's report.html")
    return page


def _show(scores: "RatingScores") -> None:
    first, second = scores.systems
    print(
        f"{len(scores.raters)} raters, {scores.questions} questions; means of 1 to 5, {first} against {second}"
    )
    print(f"{'aspect':<14}{first[:16]:>17}{second[:16]:>17}  difference (95%)         p (Holm)  alpha")
    for aspect, found in scores.aspects.items():
        interval = found["difference_ci95"]
        span = "" if interval is None else f" ({interval[0]:+.2f} to {interval[1]:+.2f})"
        alpha = "-" if found["alpha"] is None else f"{found['alpha']:.2f}"
        print(
            f"{aspect:<14}{found['means'][first]:>17.2f}{found['means'][second]:>17.2f}  "
            f"{found['difference']:+.2f}{span:<20}{found['p_holm']:>8.3f}{alpha:>7}"
        )


def _name(given: str) -> str:
    """The run's name, or the folder's own."""
    path = Path(given).expanduser().absolute()
    return path.parent.name if path.name == "adapter" else path.name
