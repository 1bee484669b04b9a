"""The image column of a file: paths beside the file, or the bytes that Hugging Face's datasets put into a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from medqlora.data.fields import bad, is_missing
from medqlora.data.images import image_file, stored_image
from medqlora.data.readers import Row
from medqlora.data.shapes.columns import Columns
from medqlora.data.shapes.contexts import parsed_cell
from medqlora.data.wording import plain
from medqlora.errors import InputError
from medqlora.records import ImageFile

#: rows that are looked at to find out whether a column holds images
_LOOKED_AT = 200


class ImageColumn:
    """Reads the images of rows.

    A column that the options name has to hold images. One that merely has a usual name ("image") is read where a row of
    the file has an image there: text files may have such a column of addresses or figures.

    Args:
        columns: of the file.
        rows: its readable rows.
    """

    def __init__(self, columns: Columns, rows: Sequence[Row]) -> None:
        self._named = columns.is_mapped("images")
        names = columns.names("images")
        if not self._named:
            names = [name for name in names if any(_is_image(row, name) for row in rows[:_LOOKED_AT])]
        self._name = names[0] if names else None
        self._files: dict[Path, ImageFile] = {}
        self._count = 0

    def of(self, row: Row) -> tuple[ImageFile, ...]:
        """The images of a row, in order.

        Raises:
            InputError: a file is missing or no image, or the cell holds something else.
        """
        if self._name is None or is_missing(row.value.get(self._name)):
            return ()
        where = f"{row.where}: {plain(self._name)}"
        images = tuple(self._image(row, value, where) for value in _cells(row, self._name))
        self._count += bool(images)
        return images

    def _image(self, row: Row, value: object, where: str) -> ImageFile:
        content = value.get("bytes") if isinstance(value, Mapping) else value
        if isinstance(content, bytes):
            return stored_image(content, where)
        path = value.get("path") if isinstance(value, Mapping) else value
        if not isinstance(path, str) or not path.strip():
            raise bad(row, str(self._name), value, "give the path of an image, or a list of paths")
        file = _beside(row, path)
        if file not in self._files:
            self._files[file] = image_file(file, where)
        return self._files[file]

    def remarks(self) -> list[str]:
        """A line on the rows with images; empty without any."""
        if self._name is None or not self._count:
            return []
        return [f"images of {self._count:,} rows from the column {plain(self._name)}"]


def _cells(row: Row, name: str) -> Sequence[object]:
    value = parsed_cell(row, name, row.value[name])
    return value if isinstance(value, (list, tuple)) else [value]


def _beside(row: Row, path: str) -> Path:
    """A path of a data file: relative ones begin at the file's folder."""
    return Path(row.file).expanduser().parent / Path(path.strip()).expanduser()


def _is_image(row: Row, name: str) -> bool:
    value = row.value.get(name)
    if is_missing(value):
        return False
    try:
        cells = _cells(row, name)
    except InputError:
        return False
    for cell in cells:
        content = cell.get("bytes") if isinstance(cell, Mapping) else None
        if isinstance(content, bytes):
            return True
        path = cell.get("path") if isinstance(cell, Mapping) else cell
        try:
            if isinstance(path, str) and path.strip() and _beside(row, path).is_file():
                return True
        except (OSError, ValueError):  # too long for a name, or with a NUL
            continue
    return False
