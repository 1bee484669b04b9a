"""Small copies of a set's images inside the page, which loads nothing."""

import base64
from io import BytesIO

from medqlora.data.images import read_pixels
from medqlora.errors import InputError
from medqlora.evaluation.report.markup import Markup, text
from medqlora.records import ImageFile, Record

#: pixels of the longer side
SIDE = 256
#: bytes of all copies of a page; the images of further questions are left out
_PAGE_BYTES = 12 << 20


class Thumbnails:
    """Makes the copies of a page, each image once, as long as the page stays small."""

    def __init__(self) -> None:
        self._made: dict[str, str | None] = {}
        self._bytes = 0

    def of(self, record: Record) -> list[str]:
        """The `data:` addresses of a question's images; an image that is gone, or too many for the page, has none."""
        return [address for image in record.images if (address := self._address(image)) is not None]

    def markup(self, record: Record) -> Markup:
        """The images of a question as elements; empty for a text question."""
        name = text(f"Image of question {record.id}")
        return Markup(
            "".join(f'<img class="thumbnail" src="{address}" alt="{name}">' for address in self.of(record))
        )

    def _address(self, image: ImageFile) -> str | None:
        if image.sha256 not in self._made:
            self._made[image.sha256] = self._copy(image)
        return self._made[image.sha256]

    def _copy(self, image: ImageFile) -> str | None:
        if self._bytes > _PAGE_BYTES:
            return None
        try:
            picture = read_pixels(image)
        except InputError:  # gone or changed since the test
            return None
        picture.thumbnail((SIDE, SIDE))
        stream = BytesIO()
        picture.save(stream, "JPEG", quality=85)
        self._bytes += stream.tell()
        return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
