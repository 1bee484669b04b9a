"""`medqlora fit --folds`: a cross-validation, one official fold after another or side by side, into one folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from medqlora.artifacts.fold_group import FoldGroup, GroupRecord
from medqlora.artifacts.run_folder import LOGS
from medqlora.commands.fold_training import train_folds
from medqlora.commands.places import check_places
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.check import check_options
from medqlora.config.command_options import own_options
from medqlora.config.words import CommandLine, with_config
from medqlora.data.folds import check_has_folds, parse_folds
from medqlora.errors import InputError
from medqlora.utils.console import say
from medqlora.utils.digests import file_digest
from medqlora.utils.locks import hold
from medqlora.utils.slurm import slurm_job

#: options that change nothing of what a fold learns
_NOT_COMPARED = ("config", "c", "resume_anyway", "progress.refresh_rate", "trainer.enable_progress_bar")


@dataclass(frozen=True)
class FoldPlan:
    """A cross-validation as its words ask for it.

    Attributes:
        folds: in their order.
        at_once: folds that are trained side by side.
        against: another group's folder; None without a comparison.
        resume: `--ckpt_path`.
        anyway: whether changed options are accepted.
        words: the options of each fold's run, without the fold.
    """

    folds: tuple[int, ...]
    at_once: int
    against: str | None
    resume: str | None
    anyway: bool
    words: tuple[str, ...]

    @property
    def logs(self) -> Path:
        """The log folder."""
        root = CommandLine.parse(self.words).value("trainer.default_root_dir") or "."
        return Path(str(root)).expanduser() / LOGS

    @property
    def one_cpu_process(self) -> bool:
        """Whether a fold's run is a single process without a GPU, which needs no process of its own."""
        line = CommandLine.parse(self.words)
        return self.at_once == 1 and line.value("trainer.accelerator") == "cpu" and self.one_device

    @property
    def one_device(self) -> bool:
        """Whether each run is asked for one device."""
        return str(CommandLine.parse(self.words).value("trainer.devices")) == "1"


def run(words: list[str]) -> int:
    """Trains the folds, and reports; see `medqlora.commands.verbs.run` for what it raises."""
    plan = _plan(CommandLine.parse(with_config(words)))
    options = _defining(plan.words)
    group = _group(plan, options)
    try:
        release = hold(group.path)
    except BlockingIOError as error:
        raise InputError(
            f"--ckpt_path: another process goes on with {group.path}: wait for it, or end it first"
        ) from error
    try:
        train_folds(
            group, plan.folds, list(plan.words), at_once=plan.at_once, in_process=plan.one_cpu_process
        )
        import_unsloth_if_named(["validate", *plan.words])
        from medqlora.commands.fold_report import report

        report(group, plan.folds, list(plan.words), plan.against)
    finally:
        release()
    return 0


def _plan(line: CommandLine) -> FoldPlan:
    """Checks the words. Raises InputError."""
    if "LOCAL_RANK" in os.environ:
        raise InputError("--folds: start it as one process; each fold starts the processes of its own run")
    for name in own_options("fit"):
        if any(one.name == name and (one.value is None or one.strays) for one in line.options):
            raise InputError(f"--{name}: it takes one value: write --{name} VALUE")
    folds = parse_folds(str(line.text("folds")))
    at_once = str(line.text("folds_at_once") or "1")
    if not at_once.isascii() or not at_once.isdigit() or int(at_once) < 1:
        raise InputError(f"--folds_at_once {at_once}: give a whole number from 1 on")
    against = line.text("against")
    if against is not None:
        FoldGroup(Path(against).expanduser()).record("--against")
    kept = line.without(*own_options("fit"), "ckpt_path")
    _check_kept(kept, int(at_once))
    anyway = str(line.value("resume_anyway")).lower() == "true"
    words = [*kept.words, f"--data.source.fold={folds[0]}"]
    check_options("fit", words, own_options("fit"), files=True)
    check_places(["fit", *words])
    return FoldPlan(folds, int(at_once), against, line.text("ckpt_path"), anyway, tuple(kept.words))


def _check_kept(kept: CommandLine, at_once: int) -> None:
    """Raises InputError for options that contradict several runs in one folder."""
    if kept.text("data.source.fold") is not None:
        raise InputError("--data.source.fold: --folds sets it for each run: leave it out")
    source = kept.class_path("data.source")
    if source is not None:
        check_has_folds(source if "." in source else f"medqlora.data.{source}")
    if kept.value("trainer.fast_dev_run"):
        raise InputError(
            "--trainer.fast_dev_run: a trial run leaves no adapter, and --folds needs each fold's: leave one out"
        )
    if kept.value("checkpoint.dirpath") is not None:
        raise InputError(
            "--checkpoint.dirpath: with --folds each run keeps its checkpoints in its own folder: leave it out"
        )
    if kept.value("trainer.logger") is not None:
        raise InputError(
            "--trainer.logger: with --folds each run logs into its own folder of the group: leave it out"
        )
    devices = kept.value("trainer.devices")
    if at_once > 1 and str(devices) not in ("None", "auto", "1"):
        raise InputError(
            f"--trainer.devices {devices}: with --folds_at_once {at_once} each fold has one: use 1"
        )


def _defining(words: tuple[str, ...]) -> dict[str, str]:
    """What defines the runs: option → its last value, and each configuration's digest."""
    line = CommandLine.parse(words)
    options = {one.name: str(one.value) for one in line.options if one.name not in _NOT_COMPARED}
    digests = {
        f"config {place}": file_digest(Path(name).expanduser())["sha256"]
        for place, name in enumerate(line.configs, 1)
    }
    return dict(sorted({**options, **digests}.items()))


def _group(plan: FoldPlan, options: dict[str, str]) -> FoldGroup:
    """The folder: a new one, or that of the cross-validation that goes on. Raises InputError."""
    resume = plan.resume
    if resume is None and os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        own = [one for one in _unfinished(plan) if one.record("--ckpt_path").slurm_job == slurm_job()]
        resume = str(own[0].path) if own else None
    if resume in ("last", "auto"):
        unfinished = _unfinished(plan)
        if unfinished:
            return _resumed(unfinished[0], plan, options)
        if resume == "last":
            listed = ",".join(map(str, plan.folds))
            raise InputError(
                f"--ckpt_path last: {plan.logs} holds no unfinished cross-validation of the folds {listed}: leave the "
                "option out, or name a folder cv_N"
            )
        say(f"--ckpt_path auto: {plan.logs} holds no unfinished cross-validation: a new one begins")
    elif resume == "best":
        raise InputError(
            "--ckpt_path best: a cross-validation goes on from the newest checkpoint: give last, or its folder"
        )
    elif resume is not None:
        return _resumed(FoldGroup(Path(resume).expanduser()), plan, options)
    elif unfinished := _unfinished(plan):
        say(
            f"Note: {unfinished[0].path} was not finished; this is a new cross-validation. To go on with that one, add "
            "--ckpt_path last"
        )
    base = str(CommandLine.parse(plan.words).value("model.backend.base") or "")
    try:
        group = FoldGroup.new(plan.logs, GroupRecord(plan.folds, base, options))
    except OSError as error:
        raise InputError(
            f"--trainer.default_root_dir: no folder can be made in {plan.logs} ({error.strerror}): let it be written "
            "in, or name another"
        ) from error
    say(f"Cross-validation of {len(plan.folds)} folds: {group.path}")
    return group


def _unfinished(plan: FoldPlan) -> list[FoldGroup]:
    """The cross-validations of these folds that have no report yet, the newest first."""
    found = []
    for group in FoldGroup.all(plan.logs):
        if not group.is_group or group.report.is_file():
            continue
        try:
            folds = group.record("--ckpt_path").folds
        except InputError:
            continue
        if folds == plan.folds:
            found.append(group)
    return found


def _resumed(group: FoldGroup, plan: FoldPlan, options: dict[str, str]) -> FoldGroup:
    """The group that goes on; finished folds were trained with its options, so these have to be the same."""
    record = group.record("--ckpt_path")
    if record.folds != plan.folds:
        listed = ",".join(map(str, record.folds))
        raise InputError(f"--folds: {group.path} is a cross-validation of the folds {listed}: give these")
    changed = sorted(
        name for name in {*options, *record.options} if options.get(name) != record.options.get(name)
    )
    if changed and not plan.anyway:
        name = changed[0]
        was, now = record.options.get(name, "not given"), options.get(name, "not given")
        raise InputError(
            f"--{name}: it is {now[:40]}, and the folds of {group.path} began with {was[:40]}: give the same options, "
            "or pass --resume_anyway true"
        )
    trained = len(group.finished(plan.folds))
    say(f"Going on with the cross-validation {group.path}: {trained} of {len(plan.folds)} folds are trained")
    return group
