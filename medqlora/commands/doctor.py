"""`medqlora doctor`: what is installed, what works on this machine, and whether a fit would start."""

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medqlora.commands.arguments import Parser
from medqlora.commands.config_files import config_files, with_config
from medqlora.commands.doctor_checks import (
    Finding,
    attention,
    bitsandbytes,
    devices,
    first_line,
    folder,
    hub,
    malicious,
    versions,
    weights,
)
from medqlora.commands.option_errors import one_line
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.errors import InputError

_EXAMPLES = """examples:
  medqlora doctor                                      would the demo start here?
  medqlora doctor --config configs/qlora.yaml          would the experiment?
  medqlora doctor --hub                                is the Hub reachable, too?
  medqlora doctor --json > doctor.json                 to send with a question

Each line is ok, a note (nothing that keeps a fit from starting), or wrong, and then says the fix. The exit
code is 0 when a fit with this configuration would start, and 1 when it would not.

Options, model, tokenizer and questions are read as `medqlora fit` reads them, without the weights. So what the
configuration names on the Hub is asked there, and questions that aren't in the cache are fetched; otherwise
no network is used. No run's folder is made, and the demo's base isn't built.
"""
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json")


def parser() -> argparse.ArgumentParser:
    """The options of its own; all of `fit`'s go with them."""
    made = Parser(
        prog="medqlora doctor",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Looks at versions, GPU, driver, attention, bitsandbytes, folders and the configuration, and says\n"
        "what is wrong and the fix. Every option of `medqlora fit` may follow.",
        epilog=_EXAMPLES,
    )
    made.add_argument(
        "--config", action="append", metavar="FILE", help="a fit's configuration (default: the demo's)"
    )
    made.add_argument("--hub", action="store_true", help="ask the Hub whether it answers, for 3 s at most")
    made.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for a mistyped option, or a configuration that isn't there."""
    options, rest = parser().parse_known_args(words)
    rest = [*(f"--config={name}" for name in options.config or ()), *rest]
    with contextlib.redirect_stdout(io.StringIO()):  # it says that the demo runs, and nothing is run
        rest = with_config(rest)
    found = diagnosed(rest, ask_hub=options.hub)
    starts = all(one.state != "wrong" for one in found)
    configs = config_files(rest)
    if options.json:
        report = {"starts": starts, "configs": configs, "findings": [one._asdict() for one in found]}
        print(json.dumps(report), flush=True)
    else:
        print("\n".join([*_lines(found), "", _verdict(found, configs)]), flush=True)
    return 0 if starts else 1


def diagnosed(words: list[str], *, ask_hub: bool = False) -> list[Finding]:
    """Everything that can be said of this machine and of a fit with `words`.

    Args:
        words: a fit's options.
        ask_hub: also ask the Hub where the configuration doesn't name it.

    Raises:
        InputError: `words` has an option that there is not.
    """
    if (bad := malicious()) is not None:  # its import alone may do the harm
        what = "not looked at: a malicious release is installed"
        return [*versions(), Finding("fit", "configuration", "wrong", what, f"remove {bad} first")]
    trial = Trial()
    trial.run(words)  # first: Unsloth has to be imported before what the checks import
    found = versions(trial.needs)
    try:
        import torch
    except Exception as error:  # a library of its own is missing: an ImportError, or the loader's OSError
        fix = "install torch again (https://pytorch.org/get-started/locally)"
        found.append(Finding("device", "torch", "wrong", f"it can't be imported ({first_line(error)})", fix))
    else:
        own = trial.device or torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        found += devices(needed=own.type == "cuda")
        # a GPU that this configuration leaves alone is looked at too
        seen = torch.device("cuda", 0) if own.type == "cpu" and torch.cuda.is_available() else own
        try:
            found += attention(seen, trial.attention, needed=seen == own)
        except Exception as error:  # the engine imports Triton where it is installed, which may be broken
            fix = "install torch and triton again, of versions that belong together"
            found.append(Finding("attention", "engine", "wrong", first_line(error), fix))
        found += bitsandbytes(own)
        if seen != own:
            found += bitsandbytes(seen, needed=False)
    found += _folders(trial)
    if trial.hub is not None:
        found.append(trial.hub)
    elif ask_hub:
        found.append(hub(needed=False))
    else:
        found.append(Finding("Hub", "Hub", "note", "not asked (--hub asks it)"))
    return found + trial.found


def _folders(trial: "Trial") -> list[Finding]:
    option = "--trainer.default_root_dir"
    found = [folder("logs", path, needed=True, option=option) for path in trial.log_folders]
    for number, path in enumerate(trial.log_folders):
        root = path.expanduser().parent
        if path.name == "lightning_logs" and not root.exists():  # `fit` makes the last part alone
            fix = f"make it, or name another with {option}"
            found[number] = Finding("folders", "logs", "wrong", f"{path}: there is no folder '{root}'", fix)
    if not trial.log_folders:
        found.append(Finding("folders", "logs", "note", "--trainer.logger false: no run's folder is kept"))
    if trial.checkpoints is not None:
        found.append(folder("checkpoints", trial.checkpoints, needed=True, option="--checkpoint.dirpath"))
    from medqlora.cache import cache_folder

    try:
        found.append(
            folder("medqlora's cache", cache_folder(), needed=trial.needs_cache, option="MEDQLORA_CACHE")
        )
    except OSError as error:
        place = f"{error.filename}: it can't be made ({error.strerror})"
        fix = "make it writable for you, or name another folder in MEDQLORA_CACHE"
        found.append(
            Finding("folders", "medqlora's cache", "wrong" if trial.needs_cache else "note", place, fix)
        )
    try:
        from huggingface_hub import constants
    except Exception as error:
        return [*found, Finding("folders", "HF_HOME", "note", f"huggingface_hub: {first_line(error)}")]
    needed = trial.hub_base is not None and not trial.in_cache
    home, cache = Path(constants.HF_HOME), Path(constants.HF_HUB_CACHE)
    found.append(folder("HF_HOME", home, needed=needed, option="HF_HOME"))
    if not cache.is_relative_to(home):
        found.append(folder("HF_HUB_CACHE", cache, needed=needed, option="HF_HUB_CACHE"))
    return found


class Trial:
    """What `medqlora fit` does before it loads a weight, tried out.

    Attributes:
        found: what came of it.
        device: where the fit would run; None where the options don't get so far.
        log_folders: where runs land.
        checkpoints: where they go instead of into the run's folder.
        attention: what the backend asks for.
        hub_base: the base, where it is the Hub's.
        in_cache: whether its weights are on this machine.
        hub: whether the Hub answers; asked where the base is the Hub's.
        needs: optional packages that are used.
        needs_cache: whether a fit can't do without medqlora's own cache folder.
    """

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self.device: Any = None
        self.log_folders = [Path("lightning_logs")]
        self.checkpoints: Path | None = None
        self.attention: str | None = None
        self.hub_base: str | None = None
        self.in_cache = False
        self.hub: Finding | None = None
        self.needs: frozenset[str] = frozenset()
        self.needs_cache = False

    def run(self, words: list[str]) -> None:
        """Never raises but InputError, for a mistyped option."""
        try:
            cli = self._built(words)
            self._look(cli)
            if self.hub_base is not None:
                self.hub = hub(needed=not self.in_cache)
            with _without_hub(self.hub is not None and self.hub.state != "ok"):
                self._start(cli)
        except _MistypedError:
            raise
        except InputError as error:  # "where: what: the fix"
            found, _, fix = str(error).rpartition(": ")
            self.found.append(Finding("fit", "configuration", "wrong", found or str(error), fix))
        except Exception as error:  # a package of which a part is missing, a file that may not be read, …
            fix = "`medqlora fit` with the same options and --debug shows where it comes from"
            self.found.append(Finding("fit", "configuration", "wrong", first_line(error), fix))

    def _built(self, words: list[str]) -> Any:
        """Trainer, module and data as `fit` builds them.

        Raises:
            InputError: an option is wrong, or Unsloth can't be had.
        """
        import_unsloth_if_named(words)
        from jsonargparse import ArgumentError

        from medqlora.commands.lightning_cli import MedQLoRACLI

        trial = self

        class Built(MedQLoRACLI):
            def before_instantiate_classes(self) -> None:
                super().before_instantiate_classes()
                options = self.config["fit"]
                trial.log_folders = _log_folders(options["trainer"])
                dirpath = options["checkpoint"]["dirpath"]
                trial.checkpoints = None if dirpath is None else Path(dirpath)
                options["trainer"]["logger"] = False  # it would be given a run's folder

            def _run_subcommand(self, subcommand: str) -> None: ...

            def start(self) -> None:
                self._start()

        cli = Built.__new__(Built)
        try:
            cli.__init__(["fit", *words], "doctor")  # type: ignore[misc]
        except ArgumentError as error:
            own = [option for action in parser()._actions for option in action.option_strings]
            known = [*cli.option_names("fit"), *(option.lstrip("-") for option in own)]
            message = one_line(str(error), known, words)
            option = message.partition(":")[0]
            if "there is no such option" in message and any(word.split("=")[0] == option for word in words):
                raise _MistypedError(message) from error
            raise InputError(message) from error
        return cli

    def _look(self, cli: Any) -> None:
        """What the other checks need to know of the configuration."""
        from medqlora.models import TinyLlama, Transformers
        from medqlora.models.hub import is_local

        self.device = cli.trainer.strategy.root_device
        backend = cli.model.backend
        kind = type(backend).__name__
        self.needs = frozenset({"unsloth"} if kind == "Unsloth" else ())
        self.needs_cache = isinstance(backend, TinyLlama) or kind == "Unsloth"
        if isinstance(backend, Transformers):
            self.attention = backend.attention
        if isinstance(backend, TinyLlama):
            return
        if not is_local(backend.base):
            self.hub_base = backend.base
            self.in_cache = _cached(backend.base, getattr(backend, "revision", None))
        elif Path(backend.base).expanduser().is_dir():
            self.found += weights(Path(backend.base).expanduser())

    def _start(self, cli: Any) -> None:
        """Everything up to the weights.

        Raises:
            InputError: what keeps the fit from starting.
        """
        from medqlora.models import TinyLlama

        demo, said = isinstance(cli.model.backend, TinyLlama), io.StringIO()
        built = not demo or _demo_base_is_built()
        with contextlib.redirect_stdout(said):
            if built:
                cli.start()
            else:
                _start_without_base(cli)
        self.found.append(
            Finding("fit", "trainer", "ok", f"{self.device}, precision {cli.trainer.precision}")
        )
        if built:
            self.found.append(Finding("fit", "base", "ok", str(cli.model.backend.base)))
        else:
            later = "the demo's is not built yet: the first fit does it, in about a minute"
            self.found.append(Finding("fit", "base", "note", later))
        self.found += [Finding("fit", "data", "ok", line) for line in said.getvalue().splitlines() if line]


class _MistypedError(InputError):
    """An option of the command line that neither `doctor` nor `fit` has."""


def _log_folders(trainer: Any) -> list[Path]:
    """Where runs land: the loggers' own folders, or `lightning_logs` under the default root."""
    if trainer["logger"] is False:
        return []
    root = Path(trainer["default_root_dir"] or ".")
    given = trainer["logger"] if isinstance(trainer["logger"], list) else [trainer["logger"]]
    folders = []
    for one in given:
        options = None if one in (None, True) else one.get("init_args")
        own = None if options is None else options.get("save_dir")
        folders.append(root / "lightning_logs" if own is None else Path(own))
    return list(dict.fromkeys(folders))


def _cached(base: str, revision: str | None) -> bool:
    """Whether the Hub's cache on this machine has the base's weights, or the list of their files."""
    from huggingface_hub import try_to_load_from_cache

    return any(
        isinstance(try_to_load_from_cache(base, name, revision=revision), str) for name in _WEIGHT_FILES
    )


@contextlib.contextmanager
def _without_hub(unreachable: bool) -> Iterator[None]:
    """While it is entered the Hub's files come from the cache alone: its client would try again for half a minute."""
    if not unreachable:
        yield
        return
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _demo_base_is_built() -> bool:
    from medqlora.cache import cache_folder

    with contextlib.suppress(OSError):  # what is wrong with the folder is a line of its own
        return any((cache_folder() / "tiny_llama").glob("[!.]*/config.json"))
    return False


def _start_without_base(cli: Any) -> None:
    """As `fit` starts, with a Llama's configuration for the base that isn't built, and no token counted.

    Raises:
        InputError: what keeps the fit from starting.
    """
    from transformers import LlamaConfig

    from medqlora.models import Transformers
    from medqlora.training.option_checks import check_options

    cli.datamodule.check()
    check_options(cli.model, cli.trainer)
    backend = cli.model.backend
    options = {name: value for name, value in backend.options().items() if name != "seed"}
    with tempfile.TemporaryDirectory(prefix="medqlora-doctor-") as base:
        LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=1).save_pretrained(base)
        device, precision = cli.trainer.strategy.root_device, str(cli.trainer.precision)
        Transformers(base, **options).check(cli.model.lora, device=device, precision=precision)
    splits = cli.datamodule.source.read()
    print(f"{len(splits.train)} training questions, {len(splits.dev)} for validation")


# ---- what is printed ---------------------------------------------------------------------------------


def _lines(found: list[Finding]) -> list[str]:
    """A list with a heading a group, its columns aligned."""
    width = max(len(one.name) for one in found)
    lines: list[str] = []
    for group in dict.fromkeys(one.group for one in found):
        lines += ["", group]
        for one in found:
            if one.group == group:
                lines.append(f"  {one.state:<5}  {one.name:<{width}}  {one.found}")
                if one.fix is not None:
                    lines.append(f"  {'':<5}  {'':<{width}}  fix: {one.fix}")
    return lines[1:]


def _verdict(found: list[Finding], configs: list[str]) -> str:
    fit = " ".join(["medqlora fit", *(f"--config {name}" for name in configs)])
    wrong = [one.name for one in found if one.state == "wrong"]
    if not wrong:
        return f"`{fit}` would start."
    return f"`{fit}` would not start. Wrong: {', '.join(dict.fromkeys(wrong))}."
