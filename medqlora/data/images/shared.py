"""Images that two sets share: the same file, or a near-duplicate by a perceptual hash.

The hash is a difference hash (Krawetz, 2013, https://www.hackerfactor.com/blog/index.php?/archives/529): the image in
grey, 17 x 16 pixels, and for each pixel whether its right neighbour is brighter: 256 bits. Scaling, recompression
and brightness leave almost all of them. It is a dozen lines; a library would add SciPy's wavelets for hashes that are
not used here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from medqlora.data.images.pixels import read_pixels
from medqlora.records import ImageFile, Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIDE = 16
#: bits that may differ between near-duplicates. Two different chest radiographs in the same position differ in 40 and
#: more; the same one as a JPEG of half its width in fewer than 8
NEAR_BITS = 10
#: rows of the table of distances at a time
_CHUNK = 512


class SharedImage(NamedTuple):
    """A test question's image that the training set has too.

    Attributes:
        test, train: the two records.
        exact: whether the files are equal; else near-duplicates.
    """

    test: Record
    train: Record
    exact: bool


def difference_hash(image: ImageFile) -> bytes:
    """The 256-bit difference hash of an image. Raises InputError where it can't be read."""
    import numpy as np
    from PIL import Image

    grey = read_pixels(image).convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.LANCZOS)
    values = np.asarray(grey, dtype=np.int16)
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes()


def shared_images(train: Sequence[Record], test: Sequence[Record]) -> list[SharedImage]:
    """For each test record with an image that the training set shares, the first such pair, in the order of `test`.

    Nothing is opened where no record has an image.
    """
    trained = {image.sha256: record for record in reversed(train) for image in record.images}
    if not trained or not any(record.images for record in test):
        return []
    near = _near_twins(_files(train), [image for one in test for image in one.images])
    shared = []
    for record in test:
        exact = next((trained[image.sha256] for image in record.images if image.sha256 in trained), None)
        if exact is not None:
            shared.append(SharedImage(record, exact, True))
            continue
        twin = next((near[image.sha256] for image in record.images if image.sha256 in near), None)
        if twin is not None:
            shared.append(SharedImage(record, trained[twin], False))
    return shared


def _files(records: Sequence[Record]) -> list[ImageFile]:
    return [image for record in records for image in record.images]


def _near_twins(train: Sequence[ImageFile], test: Sequence[ImageFile]) -> dict[str, str]:
    """SHA-256 of a test image → that of its nearest training image, where at most `NEAR_BITS` bits differ."""
    import numpy as np

    known = {image.sha256: image for image in train}
    asked = {image.sha256: image for image in test if image.sha256 not in known}
    if not asked:
        return {}
    digests = list(known)
    table = _bits([known[digest] for digest in digests])
    twins: dict[str, str] = {}
    names = list(asked)
    for start in range(0, len(names), _CHUNK):
        part = names[start : start + _CHUNK]
        # Hamming distance of 0/1 rows: |a| + |b| - 2 a.b
        bits = _bits([asked[name] for name in part])
        distances = bits.sum(1)[:, None] + table.sum(1)[None] - 2 * bits @ table.T
        nearest = distances.argmin(axis=1)
        for row, name in enumerate(part):
            if distances[row, nearest[row]] <= NEAR_BITS:
                twins[name] = digests[int(nearest[row])]
    return twins


def _bits(images: Sequence[ImageFile]) -> "NDArray[np.float32]":
    """The hashes' bits, [images, 256]."""
    import numpy as np

    rows = [np.unpackbits(np.frombuffer(difference_hash(image), dtype=np.uint8)) for image in images]
    return np.stack(rows).astype(np.float32)
