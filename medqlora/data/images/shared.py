"""Images that two sets share: the same file, or a near-duplicate by a perceptual hash.

The hash is a difference hash (Krawetz, 2013, https://www.hackerfactor.com/blog/index.php?/archives/529): the image in
grey, 17 x 16 pixels, and for each pixel whether its right neighbour is brighter: 256 bits. Scaling, recompression
and brightness leave most of them. It is a dozen lines; a library would bring wavelets that are not used here.

An image without contrast, such as a blank page, has a hash of equal bits, which says nothing of it: such images are
compared by their files alone.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from medqlora.data.images.pixels import read_pixels
from medqlora.records import ImageFile, Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIDE = 16
#: bits that may differ between near-duplicates. Of 200 drawn radiographs, which are noisy, two different ones differ in
#: 24 or more; a copy as a JPEG of another size and brightness in 10 (median) to 18 (90th percentile)
NEAR_BITS = 16
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


@lru_cache(maxsize=200_000)  # an adapter's trace is written at every better checkpoint
def difference_hash(image: ImageFile) -> bytes:
    """The 256-bit difference hash of an image. Raises InputError where it can't be read."""
    import numpy as np
    from PIL import Image

    grey = read_pixels(image).convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.LANCZOS)
    values = np.asarray(grey, dtype=np.int16)
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes()


def table_of_bits(images: Sequence[ImageFile]) -> "NDArray[np.uint8]":
    """The images' difference hashes, [images, 32]. Raises InputError where one can't be read."""
    import numpy as np

    hashes = b"".join(map(difference_hash, images))
    return np.frombuffer(hashes, dtype=np.uint8).reshape(-1, _SIDE * _SIDE // 8)


def near_duplicates(images: Sequence[ImageFile], known: "NDArray[np.uint8]") -> dict[str, int]:
    """SHA-256 of each image that has a near-duplicate → the row of the nearest in `known`, [n, 32] hashes.

    A hash that is within `NEAR_BITS` of equal bits is near to no other.

    Raises:
        InputError: an image can't be read.
    """
    import numpy as np

    if not images or not len(known):
        return {}
    table = np.unpackbits(known, axis=1).astype(np.float32)
    blank = _blank(table)
    found: dict[str, int] = {}
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK]
        bits = np.unpackbits(table_of_bits(part), axis=1).astype(np.float32)
        # Hamming distance of rows of 0 and 1: |a| + |b| - 2 a.b
        distances = bits.sum(1)[:, None] + table.sum(1)[None] - 2 * bits @ table.T
        distances[:, blank] = np.inf
        distances[_blank(bits)] = np.inf
        nearest = distances.argmin(axis=1)
        for row, image in enumerate(part):
            if distances[row, nearest[row]] <= NEAR_BITS:
                found[image.sha256] = int(nearest[row])
    return found


def _blank(bits: "NDArray[np.float32]") -> "NDArray[np.bool_]":
    """[n] whether at most `NEAR_BITS` of a row's bits differ from the others."""
    ones = bits.sum(axis=1)
    return (ones <= NEAR_BITS) | (ones >= bits.shape[1] - NEAR_BITS)


def shared_images(train: Sequence[Record], test: Sequence[Record]) -> list[SharedImage]:
    """For each test record with an image that the training set shares, the first such pair, in the order of `test`.

    Nothing is opened where no record has an image.

    Raises:
        InputError: an image can't be read.
    """
    trained = {image.sha256: record for record in reversed(train) for image in record.images}
    if not trained or not any(record.images for record in test):
        return []
    files = {image.sha256: image for record in train for image in record.images}
    others = {
        image.sha256: image for record in test for image in record.images if image.sha256 not in trained
    }
    rows = near_duplicates(list(others.values()), table_of_bits(list(files.values()))) if others else {}
    digests = list(files)
    shared = []
    for record in test:
        exact = [trained[image.sha256] for image in record.images if image.sha256 in trained]
        near = [trained[digests[rows[image.sha256]]] for image in record.images if image.sha256 in rows]
        if exact or near:
            shared.append(SharedImage(record, (exact or near)[0], bool(exact)))
    return shared
