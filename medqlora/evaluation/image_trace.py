"""Which images an adapter was trained on, as digests and perceptual hashes: enough to compare, nothing to see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medqlora.data.images.shared import near_duplicates, table_of_bits
from medqlora.evaluation.report_data import SharedImages
from medqlora.records import Record

#: ids in a report
_SHOWN = 20


class ImageOverlap(NamedTuple):
    """Test questions whose image is in the training set.

    Attributes:
        questions: test questions with an image.
        same_file: ids of those whose image is the same file.
        near: ids of those whose image is nearly one of the training set's.
    """

    questions: int
    same_file: tuple[str, ...]
    near: tuple[str, ...]

    def to_json(self) -> SharedImages:
        """As plain values, for the report."""
        return {
            "questions": self.questions,
            "same_file": len(self.same_file),
            "near_duplicates": len(self.near),
            "examples": [*self.same_file, *self.near][:_SHOWN],
        }


@dataclass(frozen=True)
class ImageTrace:
    """The images of an adapter's training records.

    Attributes:
        sha256: [images, 32] uint8, sorted.
        bits: [images, 32] uint8, their difference hashes.
    """

    sha256: NDArray[np.uint8]
    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, records: Sequence[Record]) -> "ImageTrace | None":
        """The trace of these records' images; None without any. Raises InputError for an image that is gone."""
        images = {image.sha256: image for record in records for image in record.images}
        if not images:
            return None
        names = sorted(images)
        digests = np.frombuffer(bytes.fromhex("".join(names)), dtype=np.uint8).reshape(-1, 32)
        return cls(digests, table_of_bits([images[name] for name in names]))

    def arrays(self) -> dict[str, NDArray[np.uint8]]:
        """The arrays of a file, by name."""
        return {"image_sha256": self.sha256, "image_bits": self.bits}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.uint8]]) -> "ImageTrace":
        """Reads `arrays`. Raises ValueError, KeyError for arrays of other shapes."""
        digests, bits = (
            arrays[name].astype(np.uint8).reshape(-1, 32) for name in ("image_sha256", "image_bits")
        )
        if len(digests) != len(bits):
            raise ValueError(f"{len(digests)} images and {len(bits)} hashes")
        return cls(digests, bits)

    def overlap(self, test: Sequence[Record]) -> ImageOverlap | None:
        """The test questions whose image was trained on; None where none has an image."""
        pictured = [record for record in test if record.images]
        if not pictured:
            return None
        known = {bytes(row).hex() for row in self.sha256}
        unknown = {
            image.sha256: image for record in pictured for image in record.images if image.sha256 not in known
        }
        near = near_duplicates(list(unknown.values()), self.bits)
        same = [one.id for one in pictured if any(image.sha256 in known for image in one.images)]
        alike = [
            one.id
            for one in pictured
            if one.id not in {*same} and any(image.sha256 in near for image in one.images)
        ]
        return ImageOverlap(len(pictured), tuple(same), tuple(alike))
