"""`medqlora test`: one adapter, or several (seeds, folds) and then what they have in common."""

from pathlib import Path
from typing import Any

from medqlora.artifacts.run_folder import RunFolder
from medqlora.commands.config_files import with_config
from medqlora.commands.verbs import run_verb

_ADAPTER = "--model.adapter"


def run(command: str, words: list[str]) -> int:
    """Tests; see `medqlora.commands.verbs.run` for what it raises.

    `--model.adapter` may be given several times, or be followed by several folders, as a shell's
    `lightning_logs/version_*/adapter` is: each is tested by itself, with a report of its own, and then one
    report tells their mean and spread.
    """
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
    kept: list[str] = []
    adapters: list[str] = []
    taking = False
    for word in words:
        if word == _ADAPTER:
            taking = True
        elif word.startswith(f"{_ADAPTER}="):
            adapters.append(word.split("=", 1)[1])
            taking = False
        elif taking and not word.startswith("-"):
            adapters.append(word)
        else:
            taking = False
            kept.append(word)
    if words[-1:] == [_ADAPTER]:
        kept.append(_ADAPTER)  # without a value: the parser says so
    return kept, adapters


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

    cli: Any = run_verb(words)
    folder = Path(str(cli.trainer.log_dir))
    del cli
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
