"""`medqlora test`: tests one adapter, or several (seeds, folds) and then reports their mean and deviation."""

from pathlib import Path

from medqlora.artifacts.run_folder import RunFolder
from medqlora.commands import test_gguf
from medqlora.commands.registry import Command
from medqlora.commands.verbs import check_alone, is_given, run_verb, shows_help
from medqlora.config.words import CommandLine, with_config

COMMAND = Command(
    "test",
    "PubMedQA accuracy on the official test questions, with a report",
    also=("eval", "evaluate"),
    rank=30,
)

_ADAPTER = "--model.adapter"


def run(command: str, words: list[str]) -> int:
    """Runs the tests that the options name.

    `--model.adapter` takes several folders, as a shell expands `lightning_logs/version_*/adapter`, and may be
    repeated. Each adapter then has a test and a report of its own, and one more report gives mean and standard
    deviation. `--gguf FILE` tests a GGUF file, `--ensemble A B` the mean of several adapters, `--library DIR` the
    adapters of a library.

    Raises:
        InputError, FitError, Interrupted: as `medqlora.commands.verbs.run`.
    """
    if test_gguf.is_meant(words):
        return test_gguf.run(words)
    if shows_help(command, command, words):
        return 0
    if is_given("ensemble", words):
        from medqlora.commands.ensemble import run as run_ensemble

        return run_ensemble(words)
    if is_given("library", words):
        from medqlora.commands.library_test import run as run_library

        return run_library(words)
    check_alone(words, "ensemble", ("against",))
    words, adapters = split_adapters(with_config(words))
    if len(adapters) < 2:
        run_verb([command, *words, *(f"{_ADAPTER}={adapter}" for adapter in adapters)])
        return 0
    _check_adapters(adapters)
    folders = []
    for number, adapter in enumerate(adapters, 1):
        print(f"\nAdapter {number} of {len(adapters)}", flush=True)
        folders.append(_test_adapter([command, *words, f"{_ADAPTER}={adapter}"]))
    _report_aggregate(folders)
    return 0


def split_adapters(words: list[str]) -> tuple[list[str], list[str]]:
    """Separates the adapters from the other words; both keep their order."""
    line = CommandLine.parse(words)
    name = _ADAPTER.lstrip("-")
    # an option without a value stays among the words: the check of the options reports it
    kept = line.only(lambda option: option.name != name or option.value is None)
    return kept.words, line.all_values(name)


def _check_adapters(adapters: list[str]) -> None:
    """Checks that all adapters exist and differ, before the first test, which may take an hour.

    Raises:
        InputError: an adapter is missing, damaged, or given twice.
    """
    from medqlora.errors import InputError
    from medqlora.models.adapters import find_adapter, read_adapter

    checked: set[Path] = set()
    for adapter in adapters:
        folder = adapter if adapter == "none" else find_adapter(adapter)[0]
        if folder != "none":
            read_adapter(folder)
        path = Path(folder).expanduser().resolve()
        if path in checked:
            raise InputError(f"{_ADAPTER} {adapter}: given twice: name each adapter once")
        checked.add(path)


def _test_adapter(words: list[str]) -> Path:
    """Tests one adapter, frees its model, and returns the run's folder."""
    import gc

    import torch

    run = run_verb(words)
    folder = Path(str(run.trainer.log_dir))
    del run
    gc.collect()  # trainer and module hold each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return folder


def _report_aggregate(folders: list[Path]) -> None:
    """Writes one report over the runs, in a run folder of its own, and prints its table."""
    import json

    from medqlora.evaluation import aggregate, aggregate_table, write_aggregate

    reports = [json.loads(RunFolder(folder).test_report.read_text(encoding="utf-8")) for folder in folders]
    info = {"runs": [str(folder) for folder in folders]}
    paths = write_aggregate(RunFolder.new(folders[0].parent).path, reports, info)
    print(f"\n{aggregate_table(aggregate(reports))}", flush=True)
    print(f"Report:  {paths['aggregate.html']}", flush=True)
