"""The cache folder: files that can be made again, kept between runs."""

import errno
import getpass
import os
import re
import tempfile
from pathlib import Path

#: the folder of a base that is built on this machine
_EMBEDDED = re.compile(r".*[/\\]tiny_(llama|vision)[/\\][0-9a-f]{16}")


def cache_root() -> Path:
    """`$MEDQLORA_CACHE`, else `$XDG_CACHE_HOME/medqlora`, else `~/.cache/medqlora`; the folder may not exist yet.

    Raises:
        OSError: neither variable is set, and this user has no home folder.
    """
    try:
        if root := os.environ.get("MEDQLORA_CACHE"):
            return Path(root).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "medqlora").expanduser()
    except RuntimeError as error:  # pathlib's, of a user id without an entry in /etc/passwd
        raise OSError(errno.ENOENT, "this user has no home folder", "~/.cache/medqlora") from error


def base_words(base: str) -> str:
    """A base model's name for the user: words for an embedded one, whose folder in the cache says nothing."""
    return "the demo's base model" if _EMBEDDED.fullmatch(base) else base


def quoted_base(base: object) -> str:
    """A base model in a sentence: "the base 'NAME'", or words for an embedded one."""
    words = base_words(str(base))
    return words if words != str(base) else f"the base '{base}'"


def cache_folder(*parts: str) -> Path:
    """The folder `parts` under `cache_root`; creates it where it is missing.

    Raises:
        OSError: the folder can't be created.
    """
    folder = cache_root().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def why_not_writable(folder: Path) -> str | None:
    """Why no file can be written into `folder`, which may not exist yet; None where one can. Leaves no file."""
    parent = folder.absolute()
    while not parent.is_dir():
        if parent.exists() or parent.is_symlink():
            return f"{parent} is no folder"
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def settle_without_home() -> None:
    """Points libraries that cache under the home folder to another folder, for a user whose home can't be written.

    A container that runs under its own user id has no home. Matplotlib then warns, Triton fails as it compiles,
    torch's inductor asks for the user's name, and a download from the Hub has no folder. A variable that is set stays.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # which error depends on the Python version
        os.environ["USER"] = f"uid{os.getuid()}"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("~")
    if home.is_absolute() and home.is_dir() and os.access(home, os.W_OK | os.X_OK):
        return
    try:
        root = cache_root()
    except OSError:
        root = None
    if root is None or why_not_writable(root) is not None:
        # compiled code is compiled again in the next process
        own = Path(tempfile.gettempdir()) / f"medqlora-{getpass.getuser()}"
    else:
        own = root
        if not (home / ".cache" / "huggingface").is_dir():  # a read-only home may hold downloads
            os.environ.setdefault("HF_HOME", str(own / "huggingface"))
    os.environ.setdefault("MPLCONFIGDIR", str(own / "matplotlib"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(own / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(own / "inductor"))
