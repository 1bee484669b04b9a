"""The pixels of an image file, as 8-bit RGB, upright, and without anything else that the file says."""

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.data.images.files import DICOM, check_kind, image_kind
from medqlora.errors import InputError
from medqlora.records import ImageFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

#: pixels of an image, at most: a digital mammogram has 14 million, and a small file may claim billions
MAX_PIXELS = 50_000_000
#: what a damaged image raises in Pillow
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, ArithmeticError, MemoryError)
#: all of a DICOM file that is read: the pixels, and how to show them; no field of the patient
_DICOM_FIELDS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "PixelData", "WindowCenter"),
    *("WindowWidth", "VOILUTFunction", "VOILUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
]


def read_pixels(image: ImageFile) -> "Image":
    """The image as Pillow's, 8-bit RGB; the file has to be the one that was read first.

    Raises:
        InputError: it is gone, was changed since, or can't be decoded.
    """
    import hashlib

    content = _bytes(image)
    where = "an image" if in_memory(image) else image.path
    if hashlib.sha256(content).hexdigest() != image.sha256:
        raise InputError(f"{where}: the image was changed since the questions were read: start again")
    return pixels_of(content, where)


def in_memory(image: ImageFile) -> bool:
    """Whether its path is a `data:` address that holds the image: a service writes none to a disk."""
    return image.path.startswith("data:")


def pixels_of(content: bytes, where: str) -> "Image":
    """As `read_pixels`, from the bytes of a file; `where` names it in messages."""
    kind = image_kind(content[:132])
    check_kind(kind, len(content), where)
    picture = _from_dicom(content, where) if kind == DICOM else _from_picture(content, str(kind), where)
    return _bare(picture)


def _bytes(image: ImageFile) -> bytes:
    if in_memory(image):
        return base64.b64decode(image.path.partition(",")[2])
    try:
        return Path(image.path).read_bytes()
    except OSError as error:
        raise InputError(f"{image.path}: the image can't be read ({error.strerror or error})") from error


def _bare(picture: "Image") -> "Image":
    """A copy that holds pixels alone: Pillow keeps a file's EXIF and text in `info`, and saves some of it again."""
    from PIL import Image

    return Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes())


def _from_picture(content: bytes, kind: str, where: str) -> "Image":
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(content), formats=(kind,)) as opened:
            _check_size(opened.width, opened.height, where)
            upright = ImageOps.exif_transpose(opened)
            upright.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{where}: the image has too many pixels: give at most {MAX_PIXELS:,}") from error
    except _DAMAGED as error:
        raise InputError(f"{where}: the {kind} image is damaged ({_reason(error)}): save it again") from error
    if upright.mode.startswith(("I", "F")):  # 16 and 32 bits: `convert` would cut all above 255
        import numpy as np

        return _grey(np.asarray(upright, dtype=np.float64))
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        colours = upright.convert("RGBA")
        white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, colours)
    return upright


def _from_dicom(content: bytes, where: str) -> "Image":
    """A DICOM image as a viewer shows it: its window applied, and MONOCHROME1 inverted.

    https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.11.2.html
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut, convert_color_space
    except ImportError as error:
        raise InputError(
            f"{where}: DICOM files need pydicom: pip install 'medqlora[images]', or export it as PNG"
        ) from error
    import numpy as np
    from PIL import Image

    try:
        data = pydicom.dcmread(BytesIO(content), specific_tags=list(_DICOM_FIELDS))
        _check_size(int(data.Columns), int(data.Rows), where)
        frames = int(data.get("NumberOfFrames") or 1)
        if frames > 1:
            raise InputError(f"{where}: this DICOM file holds {frames} frames: export the one to ask about")
        pixels = data.pixel_array
        kind = str(data.PhotometricInterpretation)
        if pixels.ndim == 3:
            if kind.startswith("YBR"):
                pixels = convert_color_space(pixels, kind, "RGB")
            return Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
        if kind == "PALETTE COLOR":
            pixels = pydicom.pixels.apply_color_lut(pixels, data)
            return Image.fromarray((pixels >> 8 if pixels.dtype.itemsize > 1 else pixels).astype(np.uint8))
        shown = np.asarray(apply_voi_lut(apply_modality_lut(pixels, data), data), dtype=np.float64)
        return _grey(-shown if kind == "MONOCHROME1" else shown)
    except InputError:
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds for a damaged or unusual file
        raise InputError(
            f"{where}: the DICOM image can't be read ({_reason(error)}): export it uncompressed, or as PNG"
        ) from error


def _grey(values: "NDArray[np.float64]") -> "Image":
    """Values of any range as 8-bit grey, the smallest black and the largest white."""
    import numpy as np
    from PIL import Image

    finite = np.nan_to_num(values)
    low, high = float(finite.min()), float(finite.max())
    scaled = (finite - low) * (255.0 / (high - low)) if high > low else np.zeros_like(finite)
    return Image.fromarray(scaled.round().astype(np.uint8))


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{where}: the image has {width:,} x {height:,} pixels, and at most {MAX_PIXELS:,} are read: scale it"
        )
    if width < 1 or height < 1:
        raise InputError(f"{where}: the image is empty")


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160].rstrip(":. ")
