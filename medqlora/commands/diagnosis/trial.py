"""A fit tried out, up to its weights."""

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medqlora.commands.diagnosis.base import cached, demo_base_is_built, weights
from medqlora.commands.diagnosis.finding import Finding, first_line
from medqlora.commands.diagnosis.hub import hub, without_hub
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.check import UnknownOptionError, check_options
from medqlora.errors import InputError


class Trial:
    """What `medqlora fit` does before it loads a weight, tried out.

    Args:
        own_options: the command's own, "--json" for example, which a mistyped one may have meant.

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

    def __init__(self, own_options: Sequence[str]) -> None:
        self._own_options = own_options
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
            with without_hub(self.hub is not None and self.hub.state != "ok"):
                self._start(cli)
        except UnknownOptionError:
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
        check_options("fit", words, self._own_options)
        import_unsloth_if_named(words)
        from medqlora.commands.run import Run

        trial = self

        class Built(Run):
            def settle(self, options: Any) -> None:
                trial.log_folders = _log_folders(options["trainer"])
                dirpath = options["checkpoint"]["dirpath"]
                trial.checkpoints = None if dirpath is None else Path(dirpath)
                options["trainer"]["logger"] = False  # it would be given a run's folder

        run = Built(["fit", *words], "doctor")
        run.build()
        return run

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
            self.in_cache = cached(backend.base, getattr(backend, "revision", None))
        elif Path(backend.base).expanduser().is_dir():
            self.found += weights(Path(backend.base).expanduser())

    def _start(self, cli: Any) -> None:
        """Everything up to the weights.

        Raises:
            InputError: what keeps the fit from starting.
        """
        from medqlora.models import TinyLlama

        demo, said = isinstance(cli.model.backend, TinyLlama), io.StringIO()
        built = not demo or demo_base_is_built()
        if any(one.name == "weights" and one.state == "wrong" for one in self.found):
            cli.model.backend.check_files = lambda: None  # told already: what else is wrong is looked for
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


def _log_folders(trainer: Any) -> list[Path]:
    """Where runs land: the loggers' own folders, or `lightning_logs` under the default root."""
    from medqlora.commands.classes import named_object
    from medqlora.commands.trainer_options import OWN_FOLDER

    root = Path(trainer["default_root_dir"] or ".")
    given = trainer["logger"] if isinstance(trainer["logger"], list) else [trainer["logger"]]
    named = [one for one in given if one not in (None, True)]
    folders = [Path((one.get("init_args") or {}).get("save_dir") or root) for one in named]
    if not named or not issubclass(named_object(named[0]["class_path"]), OWN_FOLDER):
        folders.insert(0, root / "lightning_logs")
    return list(dict.fromkeys(folders))


def _start_without_base(cli: Any) -> None:
    """As `fit` starts, with a Llama's configuration for the base that isn't built, and no token counted.

    Raises:
        InputError: what keeps the fit from starting.
    """
    from transformers import LlamaConfig

    from medqlora.models import Transformers
    from medqlora.training.checks.options import check_options

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
