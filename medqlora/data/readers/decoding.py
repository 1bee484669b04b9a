"""Decodes text files: UTF-8, UTF-16, UTF-32 and cp1252, the Windows code page that Excel writes.

A UTF-8 file with one broken byte must not be decoded as cp1252, which would corrupt all its other letters
silently. Therefore cp1252 is detected only in files without any UTF-8 letter.
"""

import codecs
import re
from pathlib import Path
from typing import NamedTuple

from medqlora.data.wording import reason
from medqlora.errors import InputError

_ESCAPED = re.compile("[\udc80-\udcff]")  # an invalid byte in text decoded with surrogateescape
_BOMS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),  # before UTF-16, whose mark is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
#: certain UTF-8: Latin, Greek and Cyrillic letters, symbols (E2), or two other letters in a row. Other pairs and
#: triples also occur in cp1252: "ß“" (DF 93), "é »" with a no-break space (E9 A0 BB)
_UTF8_LETTER = re.compile(
    rb"[\xc2-\xc5\xce-\xd1][\x80-\xbf]|[\xe2\xef][\x80-\xbf]{2}|(?:[\xe0-\xef][\x80-\xbf]{2}){2}"
    rb"|[\xf0-\xf4][\x80-\xbf]{3}"
)
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
#: bytes undefined in cp1252, and control characters, which UTF-16 has many of
_NOT_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d\x00-\x08\x0e-\x19\x1c-\x1f]")
#: symbols inside a word, and capitals between small letters: letters of DOS (cp437, cp850), old Mac or Polish
#: (cp1250) code pages, all of which Excel can write
_INSIDE_WORD = re.compile(
    rb"[A-Za-z\xc0-\xff\x9a][\x80\x82\x84\x87-\x89\x8b\x93\x98\x99\x9b\xa1-\xa4\xa7\xb3\xb9\xbc-\xbf][A-Za-z\xc0-\xff]"
    rb"|[a-z][\x8a\x8e\x9f][a-z]|\x9f[a-z]|[a-z][\xa1\xbf]|\xa8[A-Za-z]"
)
#: (bytes, other bytes): letters that no Western European language combines. In the code pages of Central and Eastern
#: Europe, the Baltic states and Turkey these bytes are other letters
_OTHER_PAGES = (
    (b"\xf8\xd8", b"\xe8\xec\xf9\x9a\x9e\x8a\x8e"),  # ø with è, ì, ù, š: Czech ř, č, ě, ů, š
    (b"\xe8\xe6\xec\xf0\xc8\xd0", b"\x9a\x9e\x8a\x8e"),  # è, æ, ì, ð with š, ž: Croatian č, ć, đ
    (b"\xfe\xde", b"\xf8\xd8"),  # þ with ø: Lithuanian ž, ų
    # ð, þ with ü, ç: Turkish ğ, ş; Romanian
    (b"\xf0\xfe\xd0\xde", b"\xfc\xe7\xe3\xe8\xec\xee\xe2\xeb\xdc\xc7"),
)
#: õ outside the Portuguese õe, with ö or ü, and with á, é or í: Hungarian ő
_HUNGARIAN = (re.compile(rb"\xf5[^eE]"), re.compile(rb"[\xf6\xfc]"), re.compile(rb"[\xe1\xe9\xed]"))
_LINE_START_BOM = re.compile("^\ufeff+", re.MULTILINE)


class Decoded(NamedTuple):
    """A file's text.

    Attributes:
        text: the text, without the byte order marks of concatenated files.
        encoding: the name of its encoding: "UTF-8", "UTF-16", "cp1252".
    """

    text: str
    encoding: str


def decode(
    data: bytes,
    file: Path,
    *,
    encoding: str | None = None,
    guess: bool = False,
    lenient: bool = False,
    offer: bool = False,
) -> Decoded:
    """Decodes the text of a file.

    Args:
        data: the bytes.
        file: for messages.
        encoding: the encoding from the options; None to detect it.
        guess: accept cp1252 if it is likely; only for callers that report the encoding to the user.
        lenient: decode invalid UTF-8 bytes to lone surrogates (`escaped_byte`) instead of raising.
        offer: messages may suggest the option `--data.source.encoding`.

    Raises:
        InputError: bytes are invalid in the encoding; names the line.
    """
    fix = ", or name its encoding with --data.source.encoding" if offer else ""
    text, name = _decoded(data, file, encoding, guess, lenient, fix)
    return Decoded(_LINE_START_BOM.sub("", text) if "\ufeff" in text else text, name)


def _decoded(data: bytes, file: Path, encoding: str | None, guess: bool, lenient: bool, fix: str) -> Decoded:
    if encoding is not None:
        name = codecs.lookup(encoding).name
        return Decoded(_strict(data, file, name, f"as --data.source.encoding has {encoding}"), encoding)
    for mark, name, words in _BOMS:
        if data.startswith(mark):
            if name == "utf-8":
                data = data[len(mark) :]
                break
            return Decoded(_strict(data[len(mark) :], file, name, f"as its first bytes say {words}"), words)
    else:
        name = _utf16_without_mark(data)
        if name:
            return Decoded(_strict(data, file, name, "as every second byte is 0, which is UTF-16"), "UTF-16")
    try:
        return Decoded(data.decode("utf-8"), "UTF-8")
    except UnicodeDecodeError as error:
        if guess and _is_cp1252(data):
            return Decoded(data.decode("cp1252"), "cp1252")
        if lenient:
            return Decoded(data.decode("utf-8", "surrogateescape"), "UTF-8")
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}: {_not_utf8(data[error.start])}{fix}") from error


def _strict(data: bytes, file: Path, name: str, why: str) -> str:
    try:
        return data.decode(name).removeprefix("\ufeff")
    except (UnicodeError, ValueError) as error:
        start = getattr(error, "start", 0)
        line = data[:start].decode(name, "ignore").count("\n") + 1
        raise InputError(
            f"{file}:{line}: can't be read {why} ({reason(error)}): save the file as UTF-8"
        ) from error


def _utf16_without_mark(data: bytes) -> str:
    """The codec of text that begins with ASCII characters in UTF-16, as headers and JSON do; otherwise ""."""
    start = data[:24]
    if len(start) < 4:
        return ""
    even, odd = start[::2], start[1::2]
    if not any(even[:2]) and even.count(0) > 0.7 * len(even) and 0 not in odd:
        return "utf-16-be"
    if not any(odd[:2]) and odd.count(0) > 0.7 * len(odd) and 0 not in even:
        return "utf-16-le"
    return ""


def _is_cp1252(data: bytes) -> bool:
    """Whether bytes that are not UTF-8 are text of a Western European language.

    Non-ASCII letters come alone or in pairs there. In Cyrillic, Greek and Chinese code pages they fill complete
    words, which cp1252 would garble.
    """
    if _UTF8_LETTER.search(data) or _NOT_CP1252.search(data) or _INSIDE_WORD.search(data):
        return False
    if any(_has(data, first) and _has(data, second) for first, second in _OTHER_PAGES):
        return False
    if all(letter.search(data) for letter in _HUNGARIAN):
        return False
    runs = [len(run) for run in _HIGH_RUN.findall(data)]
    return 5 * sum(length for length in runs if length >= 4) <= sum(runs)


def _has(data: bytes, letters: bytes) -> bool:
    return any(data.find(letter) >= 0 for letter in letters)


def _not_utf8(byte: int) -> str:
    return f"the byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"


def escaped_byte(text: str) -> str | None:
    """The error message for the first invalid byte in leniently decoded text; None if all bytes are valid."""
    match = _ESCAPED.search(text)
    return None if match is None else _not_utf8(ord(match[0]) - 0xDC00)


def escaped_line(text: str) -> int:
    """The line of the byte that `escaped_byte` reports, counted from 1."""
    match = _ESCAPED.search(text)
    return text.count("\n", 0, match.start() if match else 0) + 1
