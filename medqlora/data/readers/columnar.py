"""Reads Parquet and Arrow files, with the class names of Hugging Face `datasets`.

The features are in the schema metadata under "huggingface", or in `dataset_info.json` in the same folder:
https://huggingface.co/docs/datasets/about_dataset_features
"""

import json
from collections.abc import Mapping
from pathlib import Path

from medqlora.data.readers.rows import Part, Row
from medqlora.data.wording import plain, reason
from medqlora.errors import InputError
from medqlora.utils.types import Json

SUFFIXES = (".parquet", ".arrow", ".feather")


def read_columnar(file: Path, kind: str, data: bytes | None = None, *, class_names: bool = True) -> Part:
    """Reads all rows of a file.

    Args:
        file: the file.
        kind: its extension.
        data: its bytes if they are already unpacked; otherwise the file is read.
        class_names: replace class numbers by class names.

    Raises:
        InputError: the file is unreadable, or a class has no name.
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
        # pyarrow 26 follows offsets that point outside the file and crashes (SIGSEGV)
        table.validate(full=True)
        values = table.to_pylist()
    except Exception as error:  # pyarrow's own errors, and Python's for unusual values
        raise InputError(
            f"{file}: not a {kind[1:]} file that can be read ({reason(error)}): save it again"
        ) from error
    words = ["Parquet" if kind == ".parquet" else "Arrow"]
    features = _class_features(table.schema.metadata or {}, file) if class_names else {}
    if features:
        words.append(f"class names of {', '.join(plain(name) for name in list(features)[:4])}")
        values = [
            {
                name: _with_class_names(value, features.get(name), f"{file}:{number}: {plain(name)}")
                for name, value in row.items()
            }
            for number, row in enumerate(values, 1)
        ]
    rows = [Row(f"{file}:{number}", number, None, value, str(file)) for number, value in enumerate(values, 1)]
    return Part(rows, tuple(words))


def _class_features(metadata: Mapping[bytes, bytes], file: Path) -> dict[str, Json]:
    """Column → feature, for the columns that contain a ClassLabel."""
    features: Json
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        try:
            features = json.loads((file.parent / "dataset_info.json").read_text("utf-8"))["features"]
        except (OSError, KeyError, ValueError, TypeError, RecursionError):
            return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if _has_classes(feature)}


def _has_classes(feature: Json) -> bool:
    if isinstance(feature, list):
        return any(map(_has_classes, feature))
    if not isinstance(feature, dict):
        return False
    if feature.get("_type") == "ClassLabel":
        return isinstance(feature.get("names"), list)
    return any(map(_has_classes, feature.values()))


def _with_class_names(value: object, feature: Json, where: str) -> object:
    """The value with class names for class numbers; `datasets` writes -1 for a missing class."""
    if value is None or not _has_classes(feature):
        return value
    if isinstance(feature, list):
        return _each(value, feature[0], where)
    if not isinstance(feature, dict):
        return value
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list):
        if not isinstance(value, int) or value == -1:
            return None if value == -1 else value
        if not 0 <= value < len(names):
            raise InputError(f"{where} is the class {value}, and {len(names)} have a name: correct it")
        return names[value]
    if isinstance(feature.get("_type"), str):
        inner = feature.get("feature")
        if isinstance(value, dict) and isinstance(inner, dict):  # a Sequence of objects: an object of lists
            return {name: _each(items, inner.get(name), where) for name, items in value.items()}
        return _each(value, inner, where)
    if isinstance(value, dict):
        return {name: _with_class_names(item, feature.get(name), where) for name, item in value.items()}
    return value


def _each(value: object, feature: Json, where: str) -> object:
    """`_with_class_names` of each item of a list; any other value unchanged."""
    if not isinstance(value, list):
        return value
    return [_with_class_names(item, feature, where) for item in value]
