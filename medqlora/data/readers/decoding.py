"""Bytes to text: UTF-8, UTF-16, and the Windows code page that Excel writes, each only where it is plain.

A file in UTF-8 with a broken byte is not one in cp1252: to read it as such would spoil all its other letters
in silence. So cp1252 is taken only where no letter is UTF-8.
"""

import codecs
import re
from pathlib import Path
from typing import NamedTuple

from medqlora.data.wording import reason
from medqlora.errors import InputError

_ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that is no UTF-8, in text decoded with surrogateescape
_BOMS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
#: what is UTF-8 for sure: Latin, Greek and Cyrillic letters, signs (E2), and two others side by side. Other
#: pairs and triples occur in cp1252 too: "ß“" (DF 93), "é »" with a no-break space (E9 A0 BB)
_UTF8_LETTER = re.compile(
    rb"[\xc2-\xc5\xce-\xd1][\x80-\xbf]|[\xe2\xef][\x80-\xbf]{2}|(?:[\xe0-\xef][\x80-\xbf]{2}){2}"
    rb"|[\xf0-\xf4][\x80-\xbf]{3}"
)
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
#: bytes without a meaning in cp1252, and control characters, as UTF-16 has many
_NOT_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d\x00-\x08\x0e-\x19\x1c-\x1f]")
#: signs in the midst of a word, and capitals in the midst of small letters: letters of DOS (cp437, cp850), of
#: old Macs or of Poland (cp1250), all of which Excel writes on request
_MIDST = re.compile(
    rb"[A-Za-z\xc0-\xff\x9a][\x80\x82\x84\x87-\x89\x8b\x93\x98\x99\x9b\xa1-\xa4\xa7\xb3\xb9\xbc-\xbf][A-Za-z\xc0-\xff]"
    rb"|[a-z][\x8a\x8e\x9f][a-z]|\x9f[a-z]|[a-z][\xa1\xbf]|\xa8[A-Za-z]"
)
#: letters that no Western European language has beside each other, and that the code pages of Central and Eastern
#: Europe, the Baltic states and Turkey have other letters for: (any of these bytes, with any of those)
_OTHER_PAGES = (
    (b"\xf8\xd8", b"\xe8\xec\xf9\x9a\x9e\x8a\x8e"),  # ø with è, ì, ù, š: Czech ř, č, ě, ů, š
    (b"\xe8\xe6\xec\xf0\xc8\xd0", b"\x9a\x9e\x8a\x8e"),  # è, æ, ì, ð with š, ž: Croatian č, ć, đ
    (b"\xfe\xde", b"\xf8\xd8"),  # þ with ø: Lithuanian ž, ų
    (
        b"\xf0\xfe\xd0\xde",
        b"\xfc\xe7\xe3\xe8\xec\xee\xe2\xeb\xdc\xc7",
    ),  # ð, þ with ü, ç: Turkish ğ, ş; Romanian
)
#: õ that is not of the Portuguese õe, with ö or ü, and á or é: Hungarian ő
_HUNGARIAN = (re.compile(rb"\xf5[^eE]"), re.compile(rb"[\xf6\xfc]"), re.compile(rb"[\xe1\xe9\xed]"))
_LINE_START_BOM = re.compile("^\ufeff+", re.MULTILINE)


class Decoded(NamedTuple):
    """A file's text.

    Attributes:
        text: the text, without byte order marks where files were put one behind the other.
        encoding: its encoding, for the user: "UTF-8", "UTF-16", "cp1252".
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
    """The text of a file.

    Args:
        data: the bytes.
        file: for messages.
        encoding: the encoding that the user named; None to detect it.
        guess: take a file for cp1252 where that is likely: only where the user is told.
        lenient: bytes that are no UTF-8 become lone surrogates (`escaped_byte`) rather than an error.
        offer: there is an option for the encoding, which messages may name.

    Raises:
        InputError: bytes that are not of the encoding; names the line.
    """
    fix = ", or name its encoding with --data.source.encoding" if offer else ""
    found = _decoded(data, file, encoding, guess, lenient, fix)
    text = found.text
    if "\ufeff" in text:
        text = _LINE_START_BOM.sub("", text)
    return Decoded(text, found.encoding)


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
    """The order of its bytes where a text begins with ASCII in UTF-16, as a header or JSON does; else ""."""
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
    """Whether bytes that are no UTF-8 are text of a Western European language.

    Letters beyond ASCII stand alone or in pairs there; in a Cyrillic, Greek or Chinese code page they fill
    whole words, which cp1252 would make gibberish of.
    """
    if _UTF8_LETTER.search(data) or _NOT_CP1252.search(data) or _MIDST.search(data):
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
    """What is wrong with text that was decoded leniently; None where nothing is."""
    found = _ESCAPED.search(text)
    return None if found is None else _not_utf8(ord(found[0]) - 0xDC00)


def escaped_line(text: str) -> int:
    """The line of the first byte that `escaped_byte` tells of, counted from 1."""
    found = _ESCAPED.search(text)
    return text.count("\n", 0, found.start() if found else 0) + 1
