"""Images of clients: their pixels alone, read in a process of its own, and kept in memory while the question is open.

`python -m medqlora.serving.image` reads a file from its input and writes JSON.
"""

import base64
import binascii
import json
import sys
from collections.abc import Sequence
from io import BytesIO

from medqlora.records import ImageFile
from medqlora.serving.apart import SECONDS, limit_this_process, output_of
from medqlora.serving.errors import ServiceError

#: images of one question, at most
MOST_IMAGES = 4
#: pixels of the longer side; larger ones are scaled
SIDE = 1024
#: bytes of a PNG that is sent back as it is; a larger one becomes a JPEG, so that it fits a request's body
_PNG_BYTES = 512 << 10
_FIX = "give a PNG, JPEG, TIFF, WebP, BMP, GIF or DICOM file"


async def clean_image(data: bytes) -> dict[str, str | int]:
    """An image as a `data:` address with its size: upright, in 8 bits, and without anything but its pixels.

    Raises:
        ServiceError: it is none, is too large, or takes too long.
    """
    late = ServiceError(422, f"the image could not be read within {SECONDS} s: make it smaller")
    try:
        found = json.loads(await output_of(__name__, data, late))
    except ValueError:
        raise ServiceError(422, f"the image can't be read: {_FIX}") from None
    if "error" in found:
        raise ServiceError(422, str(found["error"]))
    return {"image": str(found["image"]), "width": int(found["width"]), "height": int(found["height"])}


async def clean_images(given: Sequence[str]) -> tuple[ImageFile, ...]:
    """The images of a request, each a `data:` address or bare base64.

    Raises:
        ServiceError: one is none, or not base64; an address of the network is never fetched.
    """
    images = []
    for text in given:
        head, comma, content = text.partition(",")
        if comma and not (head.startswith("data:") and head.endswith(";base64")):
            raise ServiceError(422, "images: give data:image/…;base64,… addresses, or base64")
        try:
            data = base64.b64decode(content if comma else text, validate=True)
        except (binascii.Error, ValueError):
            raise ServiceError(422, "images: an image is no base64; addresses are not fetched") from None
        images.append(in_memory(str((await clean_image(data))["image"])))
    return tuple(images)


def in_memory(address: str) -> ImageFile:
    """An image that a `data:` address holds, as the encoding takes it: nothing of it is written to a disk."""
    import hashlib

    content = base64.b64decode(address.partition(",")[2])
    return ImageFile(address, hashlib.sha256(content).hexdigest())


def main() -> None:
    """Reads standard input, writes one object."""
    limit_this_process()
    sys.stdout.write(json.dumps(read_image(sys.stdin.buffer.read())))


def read_image(data: bytes) -> dict[str, str | int]:
    """The image's address and size, or what is wrong under `error`."""
    from medqlora.data.images import pixels_of
    from medqlora.errors import InputError

    try:
        picture = pixels_of(data, "the file")
        picture.thumbnail((SIDE, SIDE))
        stream, kind = BytesIO(), "png"
        picture.save(stream, "PNG")
        if stream.tell() > _PNG_BYTES:
            stream, kind = BytesIO(), "jpeg"
            picture.save(stream, "JPEG", quality=92)
    except InputError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "the image takes too much memory: make it smaller"}
    except ImportError:
        return {"error": "images need Pillow on the server: pip install 'medqlora[images]'"}
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return {"image": f"data:image/{kind};base64,{encoded}", "width": picture.width, "height": picture.height}


if __name__ == "__main__":
    main()
