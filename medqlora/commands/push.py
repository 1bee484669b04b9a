"""`medqlora push`: an adapter, a merged model or a GGUF file to the Hub, with its card."""

import argparse
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.arguments import Parser
from medqlora.commands.newest_run import adapter_or_newest, add_logs
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.utils.terminal import printable

if TYPE_CHECKING:
    from medqlora.artifacts.hub_push import Push

COMMAND = Command(
    "push", "an adapter, a merged model or a GGUF file to the Hub", also=("upload", "publish"), rank=66
)

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_EXAMPLES = """examples:
  medqlora push --to me/ward-adapter --dry_run          what would be sent, without a request
  medqlora push --to me/ward-adapter                    the newest finished run's adapter, private
  medqlora push merged --to me/ward-8b --report lightning_logs/version_1
  medqlora push model.gguf --to me/ward-gguf --private false

The card is the folder's own. The figures of the newest `medqlora test` of the same weights go into its metadata
(model-index), with set, split and 95% intervals. The token comes from `hf auth login` or HF_TOKEN. A push that was
interrupted goes on when the same command is run again.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "push",
        "Sends an adapter, a merged model or a GGUF file to a repository of the Hub: private by default.",
        _EXAMPLES,
    )
    made.add_argument(
        "folder",
        nargs="?",
        metavar="FOLDER|FILE.gguf",
        help="what to send: a run's or an adapter's folder, a merged or exported folder, a GGUF file (default: the "
        "newest finished run's adapter)",
    )
    made.add_argument(
        "--to", required=True, metavar="OWNER/NAME", help="the repository; made where it is missing"
    )
    made.add_argument(
        "--private",
        choices=("true", "false"),
        default="true",
        help="whether others can't see a new repository (default: %(default)s)",
    )
    made.add_argument(
        "--report",
        metavar="RUN|FILE|none",
        help="test_report.json, or the run with it, for the card's figures (default: the newest test of these weights)",
    )
    made.add_argument(
        "--message", default="Sent by medqlora push", help="of the commit (default: %(default)s)"
    )
    made.add_argument("--dry_run", action="store_true", help="say what would be sent, and send nothing")
    add_logs(made)
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, a folder that is no model, or where the Hub refuses."""
    options = parser().parse_args(words)
    push, lines = _push(options)
    print("\n".join(map(printable, lines)), flush=True)
    if options.dry_run:
        print("Nothing was sent (--dry_run)", flush=True)
        return 0
    _check_network()
    from medqlora.artifacts.hub_push import send

    print(f"Sent: {send(push)}", flush=True)
    return 0


def _push(options: argparse.Namespace) -> "tuple[Push, list[str]]":
    """What to send, and the lines that say so."""
    from medqlora.artifacts.hub_card import CARD, model_index, plain_card, read_card, with_index
    from medqlora.artifacts.hub_push import STAYS, Push, files_to_send

    if not _NAME.fullmatch(options.to) or ".." in options.to:
        raise InputError(f"--to {options.to}: write OWNER/NAME, as the Hub names repositories")
    path = _path(options.folder, options.logs)
    files = files_to_send(path)
    folder = path if path.is_dir() else path.parent
    try:
        card = read_card(path) if path.is_dir() else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / CARD}: it can't be read ({error}): write it again") from error
    report, where = _report(options.report, Path(options.logs).expanduser(), path)
    card = card or plain_card(options.to.split("/")[1], sorted(files), *_origin(path))
    index = model_index(options.to.split("/")[1], report) if report else []
    push = Push(options.to, files, with_index(card, index), options.private == "true", options.message)
    width = max(map(len, files))
    lines = [f"{path} to {options.to} ({'private' if push.private else 'PUBLIC'}, where it is new)"]
    lines += [f"  {name:<{width}}  {_size(file.stat().st_size)}" for name, file in files.items()]
    lines += [
        f"  {CARD:<{width}}  the card, {_figures(index)}",
        f"{_size(push.total_bytes)} in all",
        where,
        *_notes(path),
    ]
    left = sorted(name for name in STAYS if path.is_dir() and (path / name).is_file())
    lines += [f"Not sent: {', '.join(left)}: texts of questions may be in them"] if left else []
    return push, lines


def _path(given: str | None, logs: str) -> Path:
    """The folder or GGUF file to send.

    Raises:
        InputError: it is no model.
    """
    path = Path(adapter_or_newest(given, logs)).expanduser()
    if (path / "adapter" / "adapter_config.json").is_file():
        return path / "adapter"
    if not path.exists():
        raise InputError(f"there is no folder or file {path}: name what to send")
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(
                f"{path}: it is no GGUF file: name the folder of an adapter or of a merged model"
            )
        return path
    if not any((path / name).is_file() for name in ("adapter_config.json", "config.json")) and not list(
        path.glob("*.gguf")
    ):
        raise InputError(f"{path}: no adapter, merged model or GGUF file is in it: name its folder")
    return path


def _report(given: str | None, logs: Path, path: Path) -> tuple[Mapping[str, object] | None, str]:
    """The test report whose figures go into the card, and a line on it."""
    from medqlora.artifacts.live_report import find_live_report
    from medqlora.artifacts.run_folder import TEST_REPORT

    if given == "none":
        return None, "Figures: none, as you said"
    digest = _weights_sha256(path)
    if given is None:
        found = None if digest is None else find_live_report(logs, digest)
        if found is None:
            return (
                None,
                f"Figures: none: {logs} has no test of these weights (medqlora test, or --report RUN)",
            )
        file = found.folder / TEST_REPORT
    else:
        file = Path(given).expanduser()
        file = file / TEST_REPORT if file.is_dir() else file
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"--report {file}: no test report can be read there ({error}): name a test's run"
        ) from error
    if not isinstance(report, dict) or "accuracy" not in report:
        raise InputError(f"--report {file}: it is no test report: name the run of a `medqlora test`")
    tested = report.get("adapter_sha256")
    if isinstance(tested, str) and digest is not None and tested != digest:
        raise InputError(
            f"--report {file}: it is the test of other weights: test these, or pass --report none"
        )
    return report, f"Figures: of {file}"


def _weights_sha256(path: Path) -> str | None:
    """The digest of the adapter's weights that this is, or was made from; None where it is not known."""
    from medqlora.models.weight_files import ADAPTER_WEIGHTS
    from medqlora.utils.digests import file_digest

    if (path / ADAPTER_WEIGHTS).is_file():
        return file_digest(path / ADAPTER_WEIGHTS)["sha256"]
    gguf = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if gguf:
        try:
            from medqlora.artifacts.gguf.reading import read_info

            return read_info(gguf[0], "push").adapter_sha256
        except ImportError:  # the extra `gguf`
            return None
    merged = _record(path).get("merged")
    digest = merged.get("adapter_sha256") if isinstance(merged, dict) else None
    return digest if isinstance(digest, str) else None


def _record(path: Path) -> dict[str, object]:
    """The folder's own record; {} where it has none."""
    from medqlora.models.adapters import RECORD_FILE

    try:
        record = json.loads((path / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _notes(path: Path) -> list[str]:
    """What others should know before it is sent."""
    from medqlora.artifacts.card_metadata import on_the_hub

    base = _record(path).get("base")
    if not isinstance(base, str) or on_the_hub(base):
        return []
    return [
        f"Note: its base model is a folder of this machine ({base}), which the files name: others can't load it"
    ]


def _origin(path: Path) -> tuple[str | None, str | None]:
    """(licence, base model) of a GGUF file, for a card; None for what it does not tell."""
    gguf = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if not gguf:
        return None, None
    try:
        from gguf import GGUFReader

        from medqlora.artifacts.gguf.reading import read_info
    except ImportError:
        return None, None
    read_info(gguf[0], "push")  # refuses a file that is none
    fields = GGUFReader(gguf[0]).fields
    license_ = fields.get("general.license")
    base = fields.get("general.base_model.0.repo_url")
    name = None if base is None else str(base.contents()).removeprefix("https://huggingface.co/")
    return None if license_ is None else str(license_.contents()), name


def _figures(index: list[object]) -> str:
    return "with the test's figures" if index else "without figures"


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def _check_network() -> None:
    """Raises InputError where huggingface_hub is kept off the network."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise InputError(f"{name} is set, and push needs the network: unset it, or pass --dry_run")
    from huggingface_hub import get_token

    if get_token() is None:
        raise InputError("there is no token of the Hub: log in with `hf auth login`, or set HF_TOKEN")
