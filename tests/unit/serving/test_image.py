"""Images of the service's clients: their pixels alone, and nothing that is no image."""

import asyncio
import base64
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from medqlora.data.images import read_pixels
from medqlora.serving.errors import ServiceError
from medqlora.serving.image import SIDE, clean_images, in_memory, read_image


def png(size: tuple[int, int] = (30, 20), **options: Any) -> bytes:
    stream = BytesIO()
    Image.linear_gradient("L").resize(size).save(stream, "PNG", **options)
    return stream.getvalue()


def test_a_request_holds_pixels_alone_read_in_a_process_of_its_own() -> None:
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe"
    given = png(exif=exif)
    assert b"Jane Doe" in given
    (image,) = asyncio.run(clean_images([f"data:image/png;base64,{base64.b64encode(given).decode()}"]))
    content = base64.b64decode(image.path.partition(",")[2])
    assert b"Jane" not in content
    assert read_pixels(image).tobytes() == Image.open(BytesIO(given)).convert("RGB").tobytes()


@pytest.mark.parametrize("given", ["https://example.org/x.png", "data:text/plain,hello", "no base64"])
def test_an_address_is_never_fetched(given: str) -> None:
    with pytest.raises(ServiceError, match=r"images: (an image is no base64|give data:image)"):
        asyncio.run(clean_images([given]))


def test_a_large_image_is_scaled_and_stays_small() -> None:
    noise = Image.effect_noise((2000, 1000), 80).convert("RGB")
    stream = BytesIO()
    noise.save(stream, "PNG")
    found = read_image(stream.getvalue())
    assert (found["width"], found["height"]) == (SIDE, SIDE // 2)
    assert len(str(found["image"])) < 1 << 20
    assert read_pixels(in_memory(str(found["image"]))).size == (SIDE, SIDE // 2)


def test_what_is_no_image_is_an_error_in_a_line() -> None:
    found = read_image(b"GET / HTTP/1.1")
    assert str(found["error"]).startswith("the file is no image: give one of PNG")
