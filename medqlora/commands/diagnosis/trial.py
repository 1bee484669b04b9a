"""A trial fit, up to its weights."""

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqlora.artifacts.run_folder import LOGS
from medqlora.commands.diagnosis.base import cached, demo_base_is_built, weights
from medqlora.commands.diagnosis.finding import Finding, first_line
from medqlora.commands.diagnosis.hub import hub, without_hub
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.backends import WITHOUT_UNSLOTH
from medqlora.config.check import UnknownOptionError, check_options
from medqlora.errors import InputError

if TYPE_CHECKING:
    import torch
    from jsonargparse import Namespace

    from medqlora.commands.run import Run


class Trial:
    """Does what `medqlora fit` does before it loads a weight.

    Args:
        own_options: the command's own, "--json" for example, which a mistyped option may have meant.

    Attributes:
        findings: the results.
        device: where the fit would run; None where the options are wrong.
        log_folders: where runs are written.
        checkpoints: where checkpoints are written instead of into the run's folder.
        attention: the backend's option.
        hub_base: the base model, where it is on the Hub.
        in_cache: whether its weights are on this machine.
        hub: whether the Hub answers; asked where the base model is on the Hub.
        needs: the optional packages in use.
        needs_cache: whether a fit needs medqlora's own cache folder.
    """

    def __init__(self, own_options: Sequence[str]) -> None:
        self._own_options = own_options
        self.findings: list[Finding] = []
        self.device: torch.device | None = None
        self.log_folders = [Path(LOGS)]
        self.checkpoints: Path | None = None
        self.attention: str | None = None
        self.hub_base: str | None = None
        self.in_cache = False
        self.hub: Finding | None = None
        self.needs: frozenset[str] = frozenset()
        self.needs_cache = False

    def run(self, words: list[str]) -> None:
        """Raises InputError for a mistyped option, and nothing else."""
        try:
            cli = self._build(words)
            self._inspect(cli)
            if self.hub_base is not None:
                self.hub = hub(needed=not self.in_cache)
            with without_hub(self.hub is not None and self.hub.state != "ok"):
                self._start(cli)
        except UnknownOptionError:
            raise
        except InputError as error:  # "where: what: the fix"
            what, _, fix = str(error).rpartition(": ")
            self.findings.append(Finding("fit", "configuration", "wrong", what or str(error), fix))
        except Exception as error:  # a package with a missing part, a file that may not be read, …
            fix = "`medqlora fit` with the same options and --debug shows where it comes from"
            self.findings.append(Finding("fit", "configuration", "wrong", first_line(error), fix))

    def _build(self, words: list[str]) -> "Run":
        """Trainer, module and data as `fit` builds them.

        Raises:
            InputError: an option is wrong, or Unsloth is not installed.
        """
        check_options("fit", words, self._own_options)
        import_unsloth_if_named(words)
        from medqlora.commands.run import Run as Started

        run = Started(["fit", *words], "doctor", self._settle)
        run.build()
        return run

    def _settle(self, options: "Namespace") -> None:
        """Reads the folders from the options; switches the logger off, which would make a run's folder."""
        self.log_folders = _log_folders(options["trainer"])
        dirpath = options["checkpoint"]["dirpath"]
        self.checkpoints = None if dirpath is None else Path(dirpath)
        options["trainer"]["logger"] = False

    def _inspect(self, cli: "Run") -> None:
        """Reads what the other checks need to know of the configuration."""
        from medqlora.models import TinyLlama, TinyVision, Transformers
        from medqlora.models.hub import is_local

        self.device = cli.trainer.strategy.root_device
        backend = cli.model.backend
        kind = type(backend).__name__
        self.needs = frozenset({"unsloth"} if kind in WITHOUT_UNSLOTH else ())
        self.needs_cache = isinstance(backend, (TinyLlama, TinyVision)) or kind in WITHOUT_UNSLOTH
        if isinstance(backend, Transformers):
            self.attention = backend.attention
        if isinstance(backend, (TinyLlama, TinyVision)):
            return
        if not is_local(backend.base):
            self.hub_base = backend.base
            self.in_cache = cached(backend.base, getattr(backend, "revision", None))
        elif Path(backend.base).expanduser().is_dir():
            self.findings += weights(Path(backend.base).expanduser())

    def _start(self, cli: "Run") -> None:
        """Does everything up to the weights.

        Raises:
            InputError: the reason why the fit can't start.
        """
        backend = cli.model.backend
        kept = {"TinyLlama": "tiny_llama", "TinyVision": "tiny_vision"}.get(type(backend).__name__)
        built = kept is None or demo_base_is_built(kept)
        if any(finding.name == "weights" and finding.state == "wrong" for finding in self.findings):
            # reported already: the trial goes on to find other errors
            backend.check_files = lambda: None  # type: ignore[method-assign]
        messages = io.StringIO()
        with contextlib.redirect_stdout(messages):
            if built:
                cli.prepare()
                cli.compare_with_checkpoint()
            else:
                _start_without_base(cli)
        self.findings.append(
            Finding("fit", "trainer", "ok", f"{self.device}, precision {cli.trainer.precision}")
        )
        if built:
            self.findings.append(Finding("fit", "base", "ok", str(backend.base)))
        else:
            later = "the demo's is not built yet: the first fit does it, in about a minute"
            self.findings.append(Finding("fit", "base", "note", later))
        lines = filter(None, messages.getvalue().splitlines())
        self.findings += [
            Finding("fit", "data", "note" if line.startswith(("Note:", "WARNING")) else "ok", line)
            for line in lines
        ]


def _log_folders(trainer: "Namespace") -> list[Path]:
    """Where runs are written: the loggers' own folders, or `lightning_logs` under the default root."""
    from medqlora.commands.classes import named_object
    from medqlora.trainer.checks import OWN_FOLDER

    root = Path(trainer["default_root_dir"] or ".")
    given = trainer["logger"] if isinstance(trainer["logger"], list) else [trainer["logger"]]
    loggers = [logger for logger in given if logger not in (None, True)]
    folders = [Path((logger.get("init_args") or {}).get("save_dir") or root) for logger in loggers]
    if not loggers or not issubclass(named_object(loggers[0]["class_path"]), OWN_FOLDER):
        folders.insert(0, root / LOGS)
    return list(dict.fromkeys(folders))


def _start_without_base(cli: "Run") -> None:
    """Starts as `fit` does, with a Llama's configuration for the base model that isn't built; counts no token.

    Raises:
        InputError: the reason why the fit can't start.
    """
    from transformers import LlamaConfig

    from medqlora.models import Transformers
    from medqlora.trainer.checks import check_run
    from medqlora.training.checks.options import check_options

    cli.datamodule.check()
    check_run(cli.trainer)
    check_options(cli.model.options)
    backend = cli.model.backend
    known = Transformers.option_names()
    options: dict[str, Any] = {name: value for name, value in backend.options().items() if name in known}
    with tempfile.TemporaryDirectory(prefix="medqlora-doctor-") as base:
        LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=1).save_pretrained(base)
        device, precision = cli.trainer.strategy.root_device, str(cli.trainer.precision)
        Transformers(base, **options).check(cli.model.lora, device=device, precision=precision)
    splits = cli.datamodule.source.read()
    print(f"{len(splits.train)} training questions, {len(splits.dev)} for validation")
