"""HTML elements. Text is escaped here and nowhere else."""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence

#: control characters, lone surrogates, and the marks that turn the direction of the text around them
_NOT_ALLOWED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


#: the keys of a report's fields in words
KEYS = {
    "dataset": "question set",
    "split": "part of the set",
    "seed": "seed",
    "prompt_sha256": "prompt's SHA-256",
    "normalisation": "label scores compared",
    "base": "base model",
    "base_identity": "base model's digest",
    "source": "source's options and files",
    "benchmarks": "other sets' options and files",
    "max_prompt_tokens": "longest prompt, in tokens",
    "precision": "precision of the computation",
    "asking_s": "seconds for all answers",
    "gguf": "GGUF file",
    "versions": "package versions",
}


class Markup(str):
    """Text that is HTML already. Only this project's code makes it, never data."""

    __slots__ = ()


def text(value: object) -> Markup:
    """`value` escaped, in element and in attribute; characters that HTML does not allow become "�"."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(plain(str(value)), quote=True))


def plain(text: str) -> str:
    """`text` with "�" for each character that HTML does not allow."""
    return _NOT_ALLOWED.sub("�", text.replace("\r\n", "\n").replace("\r", "\n"))


def joined(parts: Iterable[object], between: str = "\n") -> Markup:
    """The parts joined; parts that are no markup are escaped."""
    return Markup(between.join(text(part) for part in parts))


def element(tag: str, *content: object, **attributes: str) -> Markup:
    """`<tag …>content</tag>`; a final underscore of an attribute's name is dropped (`class_`)."""
    written = "".join(f' {name.rstrip("_")}="{text(value)}"' for name, value in attributes.items())
    return Markup(f"<{tag}{written}>{joined(content, '')}</{tag}>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """A table whose first column names the rows."""
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("div", element("table", element("thead", top), element("tbody", *body)), class_="scroll")


def picture(svg: bytes, description: str, caption: str, *, wide: bool = False) -> Markup:
    """A figure with the SVG as an image, so that its content can neither run nor load anything."""
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"
    image = Markup(f'<img src="{source}" alt="{text(description)}">')
    return element("figure", image, element("figcaption", caption), **({"class_": "wide"} if wide else {}))


def fields(values: Mapping[str, object], class_: str = "") -> Markup:
    """Names in words and values; long texts, lists and mappings as preformatted text. With a class, a box each."""
    parts: list[Markup] = []
    for name, value in values.items():
        if value is None or value == "" or value == {}:
            continue
        if isinstance(value, (int, float)) or (isinstance(value, str) and "\n" not in value):
            shown = text(value)
        elif isinstance(value, str):
            shown = element("pre", value)
        elif isinstance(value, Mapping) and all(
            isinstance(part, (str, int, float)) for part in value.values()
        ):
            shown = element("pre", "\n".join(f"{key} {part}" for key, part in value.items()))
        else:
            shown = element("pre", json.dumps(value, indent=2, ensure_ascii=False, default=str))
        pair = [element("dt", KEYS.get(name, name.replace("_", " "))), element("dd", shown)]
        parts += [element("div", *pair)] if class_ else pair
    return element("dl", *parts, **({"class_": class_} if class_ else {}))
