"""Access tokens: their hashes in a file, compared in constant time, and the rate that each may use."""

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from medqlora.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
#: bytes of a token's randomness: a plain SHA-256 is enough for a secret that can't be guessed
_RANDOM_BYTES = 32
_LINE = "write a line as NAME:SHA256, or NAME:SHA256:admin; --new_token NAME makes one"


@dataclass(frozen=True)
class Holder:
    """Whose token a request carries.

    Attributes:
        name: of the token, for the audit log and the rate.
        admin: whether it may load and unload adapters.
    """

    name: str
    admin: bool = False


#: of a service without tokens, which this machine alone can reach
ANYBODY = Holder("local")


class Tokens:
    """The tokens of one file.

    Args:
        entries: SHA-256 in hexadecimal → holder.
    """

    def __init__(self, entries: dict[str, Holder]) -> None:
        self._entries = entries

    @classmethod
    def read(cls, path: str) -> "Tokens":
        """Reads a file of tokens; empty lines and those that begin with # are left out.

        Raises:
            InputError: it can't be read, a line is malformed, or it holds none.
        """
        try:
            lines = Path(path).expanduser().read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text in UTF-8"
            raise InputError(
                f"--tokens {path}: can't be read ({reason}): --new_token NAME makes one"
            ) from error
        entries: dict[str, Holder] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, _, rest = line.strip().partition(":")
            digest, _, role = rest.partition(":")
            if not _NAME.fullmatch(name) or not _HASH.fullmatch(digest) or role not in ("", "admin"):
                raise InputError(f"{path}:{number}: no token: {_LINE}")
            if name in {holder.name for holder in entries.values()}:
                raise InputError(f"{path}:{number}: a second token {name!r}: give it another name")
            entries[digest] = Holder(name, role == "admin")
        if not entries:
            raise InputError(f"--tokens {path}: it holds no token: {_LINE}")
        return cls(entries)

    def holder(self, token: str) -> Holder | None:
        """Whose token this is; takes the same time for every wrong one."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for known, holder in self._entries.items():
            if hmac.compare_digest(known, digest):
                found = holder
        return found


def new_token(path: str, name: str, *, admin: bool = False) -> str:
    """Adds a token to the file, which alone its owner can read; returns the token, which is stored nowhere.

    Raises:
        InputError: the name is malformed or taken, or the file can't be written.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"--new_token {name!r}: a name has letters, digits, '_', '.' and '-', 64 at most")
    file = Path(path).expanduser()
    if file.exists() and file.stat().st_size:
        known = Tokens.read(path)
        if name in {holder.name for holder in known._entries.values()}:
            raise InputError(
                f"--new_token {name}: {path} has one already: remove its line first, or give another name"
            )
    token = f"mq-{secrets.token_urlsafe(_RANDOM_BYTES)}"
    line = f"{name}:{hashlib.sha256(token.encode()).hexdigest()}{':admin' if admin else ''}\n"
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as error:
        raise InputError(
            f"--tokens {path}: can't be written ({error.strerror}): give another file"
        ) from error
    return token


class Rate:
    """How many requests a token may make, over a moving window.

    Args:
        text: as `limits` writes it: 120/minute.
    """

    def __init__(self, text: str) -> None:
        """Raises InputError for a rate that can't be read."""
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        try:
            self._item = parse(text)
        except ValueError as error:
            raise InputError(f"--rate {text!r}: write it as 120/minute, 5/second or 10000/day") from error
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def taken(self, name: str) -> bool:
        """Counts a request; False where the token has used up its rate."""
        return self._limiter.hit(self._item, name)

    @property
    def retry_after_s(self) -> int:
        """Seconds until a window has passed."""
        return int(self._item.get_expiry())
