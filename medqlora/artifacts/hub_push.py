"""Sends a finished folder to the Hub: large files one by one, then one commit that shows all of them.

A push that ends early leaves the repository as it was. Run again, it sends what is missing: the Hub keeps the large
files that arrived (https://huggingface.co/docs/huggingface_hub/guides/upload#preupload-lfs-files-before-commit).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.artifacts.hub_card import CARD
from medqlora.errors import InputError
from medqlora.utils.progress import phase

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: reports of a merge or an export: they quote questions, which may not be for others
STAYS = ("merge_report.json", "merge_report.html", "export_report.json", "export_report.html")
#: bytes from which a file travels on its own, before the commit
_LARGE = 10 * 2**20


@dataclass(frozen=True)
class Push:
    """What goes to a repository.

    Args:
        name: of the repository, "owner/name".
        files: path in the repository → file.
        card: text of the card.
        private: whether a new repository is private; an existing one that differs is refused.
        message: of the commit.
    """

    name: str
    files: Mapping[str, Path]
    card: str
    private: bool
    message: str

    @property
    def total_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files.values()) + len(self.card.encode())


def files_to_send(folder: Path) -> dict[str, Path]:
    """Path in the repository → file: all of a folder, or a single file.

    Hidden and temporary files stay here, and so do reports that quote questions.

    Raises:
        InputError: there is nothing to send, or a link leads out of the folder.
    """
    if folder.is_file():
        return {folder.name: folder}
    root = folder.resolve()
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder)
        if any(part.startswith(".") for part in inner.parts) or file.suffix == ".part" or not file.is_file():
            continue
        if not file.resolve().is_relative_to(root):
            raise InputError(
                f"{file}: a link that leads out of the folder is not sent: replace it by the file"
            )
        found[inner.as_posix()] = file
    found = {name: file for name, file in found.items() if name not in (CARD, *STAYS)}
    if not found:
        raise InputError(
            f"{folder}: there is no file to send: name an adapter, a merged model or a GGUF file"
        )
    return found


def send(push: Push, token: str | None = None) -> str:
    """Makes the repository where needed, and sends everything; the address of the commit.

    Args:
        push: what to send.
        token: None for the one that is stored or in the environment.

    Raises:
        InputError: there is no token or no right to write, the repository is visible otherwise than asked for, or the
            Hub can't be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token, library_name="medqlora")
    try:
        _prepare(api, push)
        return _upload(api, push)
    except HfHubHTTPError as error:
        raise _refused(push.name, error) from error
    except Exception as error:  # httpx's errors are no OSError
        if not isinstance(error, (OSError, RuntimeError)) and not type(error).__module__.startswith("httpx"):
            raise
        raise InputError(
            f"--to {push.name}: the Hub can't be reached or broke off ({_reason(error)}): run the same command again, "
            "and what arrived is not sent again"
        ) from error


def _prepare(api: "HfApi", push: Push) -> None:
    """Makes the repository, or checks that the one that is there is as visible as asked for."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        there = api.model_info(push.name)
    except RepositoryNotFoundError:
        api.create_repo(push.name, private=push.private, exist_ok=True)
        return
    if push.private and there.private is False:
        raise InputError(
            f"--to {push.name}: the repository is there and public: pass --private false to send to it, or name another"
        )


def _upload(api: "HfApi", push: Push) -> str:
    from huggingface_hub import CommitOperationAdd

    additions = [CommitOperationAdd(CARD, push.card.encode("utf-8"))]
    with phase("Sending", len(push.files), "files") as bar:
        for name, file in push.files.items():
            addition = CommitOperationAdd(name, str(file))
            if file.stat().st_size >= _LARGE:
                api.preupload_lfs_files(push.name, [addition], num_threads=1)
            additions.append(addition)
            bar.advance()
        commit = api.create_commit(push.name, additions, commit_message=push.message)
    return str(commit.commit_url)


def _refused(name: str, error: Exception) -> InputError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return InputError(
            f"--to {name}: the Hub refuses ({status}): log in with `hf auth login`, or set HF_TOKEN, with a token that "
            "may write there"
        )
    if status == 404:
        return InputError(
            f"--to {name}: the Hub has no such owner, or your token may not see it: check the name"
        )
    return InputError(
        f"--to {name}: the Hub answers {status} ({_reason(error)}): run the same command again later"
    )


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :160
    ]
