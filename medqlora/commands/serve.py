"""`medqlora serve`: an HTTP API and a page that answer with calibrated decisions."""

import argparse
import dataclasses
import re
from importlib.util import find_spec
from pathlib import Path

from medqlora.commands.arguments import Parser, add_fields
from medqlora.commands.registry import Command
from medqlora.config.backends import BACKEND_NAMES
from medqlora.config.serving import ENGINES, ServeOptions
from medqlora.errors import InputError
from medqlora.safety import check_note
from medqlora.utils.progress import phase

COMMAND = Command("serve", "an HTTP API and a page that answer questions", rank=55)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "limits")
_EXAMPLES = """examples:
  medqlora serve                                  the newest finished run's adapter, on http://127.0.0.1:8000
  medqlora serve --adapter lightning_logs/version_0 ward=lightning_logs/version_3
  medqlora serve --library library                each question to the adapter of its topic
  medqlora serve --tokens tokens.txt --new_token ward      prints a token, and adds its hash to the file
  medqlora serve --host 0.0.0.0 --tokens tokens.txt

  curl -s localhost:8000/v1/answer -d '{"question": "Does metformin lower the risk of adenoma?"}'

GET / is a page, GET /openapi.json describes the API. Not medical advice.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "serve",
        "Serves adapters on one base model: OpenAI's chat, decisions with calibrated probabilities, and a page.",
        _EXAMPLES,
    )
    add_fields(made, ServeOptions, {"engine": ENGINES, "backend": BACKEND_NAMES})
    made.add_argument(
        "--new_token", metavar="NAME", help="add a token to the file of --tokens, print it, and end"
    )
    made.add_argument(
        "--admin", action="store_true", help="with --new_token: it may load and unload adapters"
    )
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, a missing package, or a model that can't be loaded."""
    given = parser().parse_args(words)
    names = [field.name for field in dataclasses.fields(ServeOptions)]
    options = ServeOptions(**{name: getattr(given, name) for name in names})
    if given.new_token is not None:
        return _new_token(options, given.new_token, given.admin)
    if given.admin:
        raise InputError("--admin belongs to --new_token NAME: pass both, or leave it out")
    check_note(options.note, "--note")
    options.check()
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"serve: {missing[0]} is not installed: pip install -e '.[serve]'")
    for name in ("tokens", "gguf", "index"):
        path = getattr(options, name)
        if path is not None and not Path(path).expanduser().is_file():
            raise InputError(f"--{name}: there is no file {path}: check the path")
    if options.adapter_folder is not None and not Path(options.adapter_folder).expanduser().is_dir():
        raise InputError(f"--adapter_folder: there is no folder {options.adapter_folder}: check the path")
    adapters, base = served(options)
    with phase("Loading the program"):
        from medqlora.serving.server import serve

    return serve(options, adapters, base)


def served(options: ServeOptions) -> tuple[dict[str, str], str | None]:
    """Name → folder of the adapters, and the base model where it is not the adapters' own.

    Raises:
        InputError: there is none, or it is damaged.
    """
    from medqlora.artifacts.runs import newest_adapter
    from medqlora.models.adapters import find_adapter, read_adapter, read_merged

    if options.library is not None:
        from medqlora.artifacts.library import Library

        return Library.open(options.library).folders(), options.base
    if options.adapter == ("none",):
        if options.base is None:
            raise InputError("--adapter none: name the base model with --base")
        return {}, options.base
    if not options.adapter:
        newest = newest_adapter(Path(options.logs))
        if newest is None:
            raise InputError(
                f"--adapter: {options.logs} holds no finished run: train one with `medqlora fit`, or name an adapter's "
                "folder"
            )
        print(f"Adapter: {newest}", flush=True)
        return {newest.parent.name: str(newest)}, options.base
    if len(options.adapter) == 1 and read_merged(options.adapter[0], "--adapter"):
        return {}, options.adapter[0]
    found: dict[str, str] = {}
    for given in options.adapter:
        name, _, path = given.partition("=")
        if not path or not _NAME.fullmatch(name) or Path(given).exists():
            name, path = "", given
        folder, remark = find_adapter(path, "--adapter")
        read_adapter(folder, "--adapter")
        if remark:
            print(remark, flush=True)
        name = name or _name_of(Path(folder))
        if name in found or name == "base":
            raise InputError(f"--adapter {given}: a second model {name!r}: give it a name, as NAME={path}")
        found[name] = folder
    return found, options.base


def _name_of(folder: Path) -> str:
    """The run's name, or the folder's own where it lies in no run."""
    folder = folder.expanduser().absolute()
    name = folder.parent.name if folder.name == "adapter" else folder.name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "adapter"


def _new_token(options: ServeOptions, name: str, admin: bool) -> int:
    if options.tokens is None:
        raise InputError("--new_token needs the file that it is added to: pass --tokens FILE")
    from medqlora.serving.tokens import new_token

    print(new_token(options.tokens, name, admin=admin), flush=True)
    return 0
