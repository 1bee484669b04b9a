"""`medqlora test`: one adapter, or several (seeds, folds) and then what they have in common."""

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
    """Tests; see `medqlora.commands.verbs.run` for what it raises.

    `--model.adapter` may be given several times, or be followed by several folders, as a shell's
    `lightning_logs/version_*/adapter` is: each is tested by itself, with a report of its own, and then one
    report tells their mean and spread. With `--gguf FILE` a GGUF file is tested, with
    `--ensemble A B` adapters that answer together, with `--library DIR` those of a library.
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
        run_verb([command, *words, *(f"{_ADAPTER}={one}" for one in adapters)])
        return 0
    _check(adapters)
    folders = []
    for number, adapter in enumerate(adapters, 1):
        print(f"\nAdapter {number} of {len(adapters)}", flush=True)
        folders.append(_tested([command, *words, f"{_ADAPTER}={adapter}"]))
    _together(folders)
    return 0


def split_adapters(words: list[str]) -> tuple[list[str], list[str]]:
    """The words without the adapters', and the adapters, in order."""
    line = CommandLine.parse(words)
    name = _ADAPTER.lstrip("-")
    # without a value it is left for the check to report
    kept = line.only(lambda option: option.name != name or option.value is None)
    return kept.words, line.all_values(name)


def _check(adapters: list[str]) -> None:
    """Before the first of them is tested, which may take an hour, all have to be there, and differ."""
    from medqlora.errors import InputError
    from medqlora.models.adapters import find_adapter, read_adapter

    seen: set[str] = set()
    for adapter in adapters:
        folder = adapter if adapter == "none" else find_adapter(adapter)[0]
        if folder != "none":
            read_adapter(folder)
        place = str(Path(folder).expanduser().resolve())
        if place in seen:
            raise InputError(f"{_ADAPTER} {adapter}: given twice: name each adapter once")
        seen.add(place)


def _tested(words: list[str]) -> Path:
    """Tests one adapter and lets its model go; the folder of its run."""
    import gc

    import torch

    run = run_verb(words)
    folder = Path(str(run.trainer.log_dir))
    del run
    gc.collect()  # trainer and module hold each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return folder


def _together(folders: list[Path]) -> None:
    """One report over the runs, beside theirs."""
    import json

    from medqlora.evaluation import aggregate, aggregate_table, write_aggregate

    reports = [json.loads(RunFolder(folder).test_report.read_text(encoding="utf-8")) for folder in folders]
    info = {"runs": [str(folder) for folder in folders]}
    paths = write_aggregate(RunFolder.new(folders[0].parent).path, reports, info)
    print(f"\n{aggregate_table(aggregate(reports))}", flush=True)
    print(f"Report:  {paths['aggregate.html']}", flush=True)
