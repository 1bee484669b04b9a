"""Parquet and Arrow to rows, with the names of the classes that Hugging Face's `datasets` stores as numbers.

Its features stand in the schema's metadata under "huggingface", and in `dataset_info.json` beside the data:
https://huggingface.co/docs/datasets/about_dataset_features
"""

import json
from pathlib import Path
from typing import Any

from medqlora.data.readers.rows import Part, Row
from medqlora.data.wording import plain, reason
from medqlora.errors import InputError

SUFFIXES = (".parquet", ".arrow", ".feather")


def read_columnar(file: Path, kind: str, data: bytes | None = None, *, class_names: bool = True) -> Part:
    """All rows of a file.

    Args:
        file: the file.
        kind: its extension.
        data: its bytes where they are unpacked already; else the file is read.
        class_names: give the name of a class rather than its number.

    Raises:
        InputError: it can't be read, or has a class without a name.
    """
    import pyarrow as pa
    import pyarrow.ipc
    import pyarrow.parquet

    try:
        if kind == ".parquet":
            table = pyarrow.parquet.ParquetFile(file if data is None else pa.BufferReader(data)).read()
        else:
            with pa.memory_map(str(file)) if data is None else pa.BufferReader(data) as source:
                try:
                    table = pyarrow.ipc.open_file(source).read_all()
                except pa.ArrowInvalid:  # `datasets` writes the stream format
                    source.seek(0)
                    table = pyarrow.ipc.open_stream(source).read_all()
        # offsets that point outside of the file would be followed: pyarrow 26 dies of it (SIGSEGV)
        table.validate(full=True)
        values = table.to_pylist()
    except Exception as error:  # pyarrow raises ones of its own, and of Python's whatever a value brings up
        raise InputError(
            f"{file}: not a {kind[1:]} file that can be read ({reason(error)}): save it again"
        ) from error
    classes = _classes(table.schema.metadata or {}, file) if class_names else {}
    if classes:
        values = [
            {
                name: _named(value, classes.get(name), f"{file}:{number}: {plain(name)}")
                for name, value in row.items()
            }
            for number, row in enumerate(values, 1)
        ]
    words = [{".parquet": "Parquet"}.get(kind, "Arrow")]
    if classes:
        words.append(f"class names of {', '.join(plain(name) for name in list(classes)[:4])}")
    rows = [Row(f"{file}:{number}", number, None, value, str(file)) for number, value in enumerate(values, 1)]
    return Part(rows, tuple(words))


def _classes(metadata: dict[bytes, bytes], file: Path) -> dict[str, Any]:
    """column → its feature, for those that hold a ClassLabel."""
    features: Any = None
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        try:
            features = json.loads((file.parent / "dataset_info.json").read_text("utf-8"))["features"]
        except (OSError, KeyError, ValueError, TypeError, RecursionError):
            return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if _holds_classes(feature)}


def _holds_classes(feature: Any) -> bool:
    if isinstance(feature, list):
        return any(map(_holds_classes, feature))
    if not isinstance(feature, dict):
        return False
    if feature.get("_type") == "ClassLabel":
        return isinstance(feature.get("names"), list)
    return any(map(_holds_classes, feature.values()))


def _named(value: Any, feature: Any, where: str) -> Any:
    """A value with the names of its classes; -1 is how `datasets` writes a missing one."""
    if value is None or not _holds_classes(feature):
        return value
    if isinstance(feature, list):
        return [_named(item, feature[0], where) for item in value] if isinstance(value, list) else value
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature["names"]
        if not isinstance(value, int) or value == -1:
            return None if value == -1 else value
        if not 0 <= value < len(names):
            raise InputError(f"{where} is the class {value}, and {len(names)} have a name: correct it")
        return names[value]
    if isinstance(kind, str):
        inner = feature.get("feature")
        if isinstance(value, dict) and isinstance(inner, dict):  # a Sequence of objects: an object of lists
            return {
                name: [_named(item, inner.get(name), where) for item in items]
                if isinstance(items, list)
                else items
                for name, items in value.items()
            }
        return [_named(item, inner, where) for item in value] if isinstance(value, list) else value
    if isinstance(value, dict):
        return {name: _named(item, feature.get(name), where) for name, item in value.items()}
    return value
