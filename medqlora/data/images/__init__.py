"""Images of questions: their files, their pixels, and what two sets share.

Pillow and pydicom are imported when an image is read, so runs on text alone need neither.
"""

from medqlora.data.images.files import DICOM, MAX_BYTES, image_file, image_kind, stored_image
from medqlora.data.images.pixels import in_memory, pixels_of, read_pixels

__all__ = [
    "DICOM",
    "MAX_BYTES",
    "image_file",
    "image_kind",
    "in_memory",
    "pixels_of",
    "read_pixels",
    "stored_image",
]
