"""What commands share that ask several adapters the same questions on one loaded base model."""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.artifacts.fold_group import group_adapters
from medqlora.artifacts.run_folder import LOGS, RunFolder
from medqlora.commands.early_read import check_test_set
from medqlora.commands.places import check_places
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.check import check_options
from medqlora.config.command_options import own_options
from medqlora.config.words import CommandLine
from medqlora.errors import InputError
from medqlora.models.adapters import find_adapter, read_adapter
from medqlora.models.weight_files import ADAPTER_WEIGHTS
from medqlora.utils.console import say
from medqlora.utils.digests import file_digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medqlora.commands.lightning_cli import MedQLoRACLI
    from medqlora.datamodule import PubMedQADataModule
    from medqlora.evaluation import Tested
    from medqlora.inference.out_of_fold import Scores
    from medqlora.records import Encoded, Prediction, Record


def adapter_folders(given: Sequence[str], option: str) -> list[str]:
    """The adapters' folders, each once: of adapters, runs, and cross-validations.

    Raises:
        InputError: one isn't there, is damaged, or is named twice.
    """
    folders: dict[str, str] = {}
    bases: dict[str, object] = {}
    for name in given:
        for one in group_adapters(name, option) or [find_adapter(name, option)[0]]:
            bases[one] = read_adapter(one, option).get("base_identity")
            place = str(Path(one).expanduser().resolve())
            if place in folders:
                raise InputError(f"{option} {name}: {one} is given twice: name each adapter once")
            folders[place] = one
    first = next(iter(bases), "")
    if other := next(
        (one for one, base in bases.items() if None not in (base, bases[first]) and base != bases[first]),
        None,
    ):
        raise InputError(
            f"{option}: {first} and {other} were trained on different base models: name adapters of one"
        )
    return list(folders.values())


def same_weights(folders: Sequence[str]) -> list[list[str]]:
    """Groups of two or more adapter folders whose weights are the same bytes; only files of one size are read."""
    files = {one: Path(one).expanduser() / ADAPTER_WEIGHTS for one in folders}
    sizes = Counter(file.stat().st_size for file in files.values())
    groups: dict[str, list[str]] = {}
    for one, file in files.items():
        if sizes[file.stat().st_size] > 1:
            groups.setdefault(file_digest(file)["sha256"], []).append(one)
    return [group for group in groups.values() if len(group) > 1]


def check_words(words: list[str], option: str) -> None:
    """Checks the words of a test without its own options, before anything heavy is imported.

    Raises:
        InputError: an option is wrong, or contradicts `option`.
    """
    line = CommandLine.parse(words)
    for name in ("model.adapter", "ckpt_path"):
        if line.value(name) is not None:
            raise InputError(f"--{name}: {option} names the weights: leave it out")
    if line.value("data.retrieval.index") is not None:
        raise InputError(
            f"--data.retrieval.index: {option} asks the questions with their own contexts: leave it out"
        )
    if str(line.value("report.prior_correction")).lower() == "true":
        raise InputError(
            f"--report.prior_correction true: {option} compares the labels as scored: leave it out"
        )
    check_test_set(check_options("test", words, own_options("test"), files=True))
    check_places(["test", *words])
    import_unsloth_if_named(["test", *words])


def device_of(words: Sequence[str]) -> str:
    """The device that the words' Trainer would take."""
    return "cpu" if CommandLine.parse(words).value("trainer.accelerator") == "cpu" else "auto"


def log_folder(words: Sequence[str]) -> Path:
    """The log folder of the words."""
    root = CommandLine.parse(words).value("trainer.default_root_dir") or "."
    return Path(str(root)).expanduser() / LOGS


def new_run_folder(words: Sequence[str]) -> RunFolder:
    """Makes a new run's folder under the words' log folder."""
    root = log_folder(words)
    root.parent.mkdir(parents=True, exist_ok=True)
    return RunFolder.new(root)


def test_sets(words: list[str], adapters: Sequence[str], option: str) -> "MedQLoRACLI":
    """The datamodule of a test with its questions read; no weight is loaded.

    Raises:
        InputError: the questions can't be read or have no labels, or an adapter belongs to another base model.
    """
    from medqlora.commands.run import build
    from medqlora.models.adapters import check_adapter_base

    built = build(["test", *words], with_trainer=False)
    backend, data = built.model.backend, built.datamodule
    for folder in adapters:
        check_adapter_base(folder, backend.base, backend.identity())
        recorded = read_adapter(folder).get("prompt")
        trained_with = recorded.get("name") if isinstance(recorded, dict) else None
        if trained_with not in (None, data.prompt_name):
            say(
                f"Note: {folder} was trained with the prompt '{trained_with}', asked with '{data.prompt_name}'"
            )
    data.images = backend.images()
    data.read(backend.tokenizer(), ("test",), report=say)
    data.read_benchmarks(report=say)
    for questions in data.sets:
        if not all(example.labels for example in questions.test):
            raise InputError(
                f"{option}: the questions of {questions.source.name} need labels: free answers have none"
            )
    return built


def option_of(built: "MedQLoRACLI", name: str) -> object:
    """An option of a callback, as "report.normalisation", as it was given."""
    return built.config[built.verb][name]


def development_questions(words: list[str], adapters: Sequence[str]) -> "list[PubMedQADataModule]":
    """Datamodules with the validation questions of each fold that the adapters were trained with; one without folds.

    Raises:
        InputError: they can't be read.
    """
    from medqlora.commands.run import build

    folds: dict[object, None] = {}
    for folder in adapters:
        described = read_adapter(folder).get("data")
        folds[described.get("fold") if isinstance(described, dict) else None] = None
    read = []
    for fold in folds:
        extra = [] if fold is None else [f"--data.source.fold={fold}"]
        built = build(["test", *words, *extra], with_trainer=False)
        built.datamodule.validation_samples = None
        built.datamodule.images = built.model.backend.images()
        built.datamodule.read(built.model.backend.tokenizer(), ("dev",), report=lambda line: None)
        read.append(built.datamodule)
    return read


@dataclass(frozen=True)
class HeldOutQuestions:
    """Validation questions of an ensemble's members.

    Attributes:
        records: the questions.
        examples: id → the encoded question.
        trained: member → ids of those that it was trained on.
    """

    records: "Sequence[Record]"
    examples: "Mapping[str, Encoded]"
    trained: "Mapping[str, Set[str]]"

    @property
    def answers(self) -> int:
        """Number of answers by the members that did not train on them."""
        return sum(record.id not in ids for ids in self.trained.values() for record in self.records)


@dataclass(frozen=True)
class HeldOut:
    """An ensemble on its members' validation questions, each answered by the members that did not train on it.

    No validation question is held out from two folds of one cross-validation. So the ensemble of folds can't be asked
    questions that are new to all of it, and its calibration is that of single members: an average of several is more
    often right at the same confidence, and so it is rather too cautious. Seeds of one split all answer every question.

    Attributes:
        predictions: the mean log-probabilities of the members that answered.
        answered_by: number of members → validation questions that as many answered.
    """

    predictions: "list[Prediction]" = field(default_factory=list)
    answered_by: Mapping[int, int] = field(default_factory=dict)

    def to_json(self, members: int) -> dict[str, object]:
        """`questions`, `members` of the ensemble, and `answered_by`, for a file."""
        counts = {str(count): questions for count, questions in sorted(self.answered_by.items())}
        return {"questions": len(self.predictions), "members": members, "answered_by": counts}

    def words(self, members: int) -> str:
        """One line for a person."""
        if not self.predictions:
            return "none: it is not known which questions were held out from the members"
        counts = " or ".join(str(count) for count in sorted(self.answered_by))
        cautious = " (rather too cautious for all together)" if min(self.answered_by) < members else ""
        return (
            f"on {len(self.predictions)} validation questions, each answered by the {counts} of {members} adapters "
            f"that did not train on it{cautious}"
        )


def held_out_questions(members: Sequence[str], words: list[str]) -> "list[HeldOutQuestions]":
    """The members' validation questions; none where it is not known what a member was trained on."""
    from medqlora.artifacts.evaluated_weights import trained_on

    if not all(read_adapter(member).get("train_ids") for member in members):
        return []  # an adapter made elsewhere
    found = []
    for data in development_questions(words, members):
        records = [data.records[example.id] for example in data.dev if example.labels]
        own = [data.sets[0].own_record(record.id) for record in records]
        found.append(
            HeldOutQuestions(
                records,
                {example.id: example for example in data.dev},
                {member: trained_on(member, own) for member in members},
            )
        )
    return found


def held_out_predictions(ask: "Scores", questions: "Sequence[HeldOutQuestions]") -> HeldOut:
    """The ensemble on its members' validation questions."""
    from medqlora.inference.out_of_fold import out_of_fold

    found: dict[str, Prediction] = {}
    answered_by: dict[str, int] = {}
    for each in questions:
        for prediction in out_of_fold(ask, each.trained, each.records, each.examples):
            count = sum(prediction.id not in ids for ids in each.trained.values())
            if prediction.id not in found:
                found[prediction.id], answered_by[prediction.id] = prediction, count
    return HeldOut(list(found.values()), Counter(answered_by.values()))


def check_contamination(
    adapters: Sequence[str], data: "PubMedQADataModule", allow: bool, option: str
) -> "dict[str, object]":
    """What the adapters' training sets have in common with the test questions: set → result, the worst adapter's.

    Raises:
        InputError: test questions were trained on, and that is not allowed.
    """
    from medqlora.artifacts.evaluated_weights import EvaluatedWeights
    from medqlora.evaluation import overlap

    worst: dict[str, object] = {}
    for folder in adapters:
        trace = EvaluatedWeights("adapter", folder, folder=Path(folder).expanduser()).trace()
        if trace is None:
            continue
        for questions in data.sets:
            name = questions.source.name
            found = overlap(trace, [questions.own_record(example.id) for example in questions.test])
            if found.contaminated and not allow:
                raise InputError(
                    f"{option}: {len(found.contaminated)} of the {found.n} test questions of {name} were in the "
                    f"training set of {folder} (the first is {found.contaminated[0]}): test on others, or pass "
                    "--report.allow_overlap true to have it reported"
                )
            if name not in worst or found.contaminated:
                worst[name] = found.to_json()
    return worst


def write_tested(
    words: list[str], tested: "Sequence[Tested]", facts: Mapping[str, str], files: Mapping[str, object]
) -> Path:
    """Writes a test's run folder: report, predictions, TensorBoard's events, and `files` as JSON; the folder.

    Args:
        words: of the test.
        tested: a question set each.
        facts: of the page's header.
        files: name → content of further JSON files.
    """
    from torch.utils.tensorboard import SummaryWriter

    from medqlora.callbacks.event_files import tag_of
    from medqlora.evaluation import write_report, write_suite
    from medqlora.evaluation.report.context import Context
    from medqlora.training.tested_sets import log_figures, logged_scores
    from medqlora.utils.versions import versions

    folder = new_run_folder(words).path
    info = {"command": shlex.join(["medqlora", *sys.argv[1:]]), "versions": versions()}
    context = Context(dict(facts), {})
    if len(tested) > 1:
        write_suite(folder, tested, info, context)
    else:
        one = tested[0]
        write_report(folder, one.scores, one.predictions, one.records, one.base, info, context)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    writer = SummaryWriter(str(folder))
    for name, value in logged_scores(tested).items():
        writer.add_scalar(tag_of(name), value, 0)

    def add(name: str, figure: "Figure", step: int, close: bool) -> None:
        writer.add_figure(tag_of(name), figure, step, close)

    log_figures(add, tested, 0)
    writer.close()
    return folder


def kept_words(line: CommandLine, command: str) -> list[str]:
    """The words without the command's own options and their values."""
    return line.without(*own_options(command)).words


def many_values(line: CommandLine, name: str) -> list[str]:
    """The values of an option of the command that takes several.

    Raises:
        InputError: it has none.
    """
    values = line.all_values(name)
    if not values:
        raise InputError(f"--{name}: its value is missing: name one or more folders")
    return values
