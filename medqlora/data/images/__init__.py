"""Images of questions: their files, their pixels, and what two sets share.

Pillow and pydicom are imported when an image is read, so runs on text alone need neither.
"""

from medqlora.data.images.files import DICOM, MAX_BYTES, image_file, image_kind, sanitized_png, stored_image
from medqlora.data.images.pixels import image_size, in_memory, read_pixels

__all__ = [
    "DICOM",
    "MAX_BYTES",
    "image_file",
    "image_kind",
    "image_size",
    "in_memory",
    "read_pixels",
    "sanitized_png",
    "stored_image",
]
