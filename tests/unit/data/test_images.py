"""Images of questions: their files and pixels, what two sets share, and the columns that name them."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import write_rows
from PIL import Image
from tiny_vision_models import write_image

from medqlora.data import JSONLines
from medqlora.data.checks import content
from medqlora.data.images import image_file, pixels_of, read_pixels, stored_image
from medqlora.data.images.shared import difference_hash, shared_images
from medqlora.data.sources.synthetic_radiographs import SyntheticRadiographs
from medqlora.errors import InputError
from medqlora.evaluation.contamination import TrainingTrace, overlap
from medqlora.records import Record
from medqlora.training.checks.examples import check_apart


def encoded(picture: Any, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def pixels(content: bytes) -> Any:
    return np.asarray(read_pixels(stored_image(content, "test")))


GREY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_every_lossless_format_gives_the_same_pixels(kind: str) -> None:
    shown = pixels(encoded(GREY, kind))
    assert shown.shape == (8, 8, 3)
    assert (shown == np.asarray(GREY)[..., None]).all()


def test_an_image_is_turned_as_its_camera_says_and_keeps_nothing_else() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010E] = "Jane Doe, born 1950"
    tall = Image.fromarray(np.zeros((8, 24, 3), dtype=np.uint8))
    source = encoded(tall, "JPEG", exif=exif, comment=b"Jane Doe")
    assert b"Jane Doe" in source
    clean = encoded(pixels_of(source, "test"), "PNG")
    assert b"Jane" not in clean
    opened = Image.open(BytesIO(clean))
    assert opened.size == (8, 24)
    assert not opened.getexif()
    assert not opened.info


def test_sixteen_bits_are_scaled_and_transparency_is_white() -> None:
    deep = Image.fromarray(np.array([[1000, 3000], [2000, 1000]], dtype=np.uint16))
    assert pixels(encoded(deep, "PNG"))[..., 0].tolist() == [[0, 255], [128, 0]]
    clear = Image.fromarray(np.zeros((2, 2, 4), dtype=np.uint8))
    assert (pixels(encoded(clear, "PNG")) == 255).all()


def dicom(values: Any, kind: str = "MONOCHROME2", **fields: Any) -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.PatientName, made.PatientID = "Doe^Jane", "4711"
    made.Rows, made.Columns = values.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, kind
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    for name, value in fields.items():
        setattr(made, name, value)
    made.PixelData = values.astype("<u2").tobytes()
    stream = BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_a_dicom_image_is_windowed_inverted_and_without_its_patient() -> None:
    values = np.array([[0, 100], [200, 400]])
    assert pixels(dicom(values))[..., 0].tolist() == [[0, 64], [127, 255]]
    windowed = dicom(values, WindowCenter=100, WindowWidth=200)
    assert pixels(windowed)[..., 0].tolist() == [[0, 128], [255, 255]]
    assert pixels(dicom(values, "MONOCHROME1"))[..., 0].tolist() == [[255, 191], [127, 0]]
    assert b"Doe" not in encoded(pixels_of(dicom(values), "test"), "PNG")
    frames = stored_image(dicom(np.zeros((2, 2)), NumberOfFrames=2), "test")
    with pytest.raises(InputError, match="holds 2 frames: export the one to ask about"):
        read_pixels(frames)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GET / HTTP/1.1", "is no image: give one of PNG"),
        (encoded(GREY, "PNG")[:40], "the PNG image is damaged"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 40, "the DICOM image can't be read"),
        (encoded(Image.new("1", (30_000, 3_000)), "PNG"), "pixels"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        pixels_of(content, "--image scan")
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("--image scan")


def test_an_image_that_was_changed_since_is_not_read(tmp_path: Path) -> None:
    image = image_file(write_image(tmp_path / "a.png"), "test")
    write_image(tmp_path / "a.png", 1)
    with pytest.raises(InputError, match="was changed since the questions were read"):
        read_pixels(image)


def test_the_same_picture_is_found_again_smaller_as_a_jpeg_and_another_one_is_not() -> None:
    first, second = (one.images[0] for one in SyntheticRadiographs(2, 0, 1).read().train)
    large = read_pixels(first).resize((300, 300))
    copy = stored_image(encoded(large, "JPEG", quality=60), "test")

    def distance(one: Any, other: Any) -> int:
        bits = [np.unpackbits(np.frombuffer(difference_hash(image), np.uint8)) for image in (one, other)]
        return int((bits[0] != bits[1]).sum())

    assert distance(first, copy) <= 16 < distance(first, second)
    train = [Record("t", "Is there one?", images=(first,)), Record("u", "Is there one?", images=(second,))]
    test = [
        Record("x", "Where?", images=(copy,)),
        Record("y", "What?", images=(second,)),
        Record("z", "Text?"),
    ]
    assert [(one.test.id, one.train.id, one.exact) for one in shared_images(train, test)] == [
        ("x", "t", False),
        ("y", "u", True),
    ]


def test_images_without_contrast_are_near_duplicates_of_none() -> None:
    from PIL import Image

    def flat(shade: int) -> Any:
        return stored_image(encoded(Image.new("L", (40, 40), shade), "PNG"), "test")

    ramp = Image.fromarray(np.tile(np.arange(0, 240, 6, dtype=np.uint8), (40, 1)))
    nearly = Image.new("L", (40, 40), 9)
    nearly.putpixel((20, 20), 255)  # one bright spot: a few bits
    first = stored_image(encoded(ramp, "PNG"), "test")
    other = stored_image(encoded(ramp.point(lambda value: value // 2), "PNG"), "test")
    train = [Record(f"t{shade}", "Is it?", images=(flat(shade),)) for shade in (0, 90)]
    train.append(Record("ramp", "Is it?", images=(first,)))
    spot = stored_image(encoded(nearly, "PNG"), "test")
    test = [Record("x", "What?", images=(flat(200),)), Record("y", "What?", images=(other,))]
    test.append(Record("z", "What?", images=(spot,)))
    assert shared_images(train, test) == []
    # the same file is the same image, with contrast or without
    same = shared_images(train, [Record("w", "What?", images=(flat(90),))])
    assert [(one.train.id, one.exact) for one in same] == [("t90", True)]


def test_contamination_is_the_question_with_its_image_and_shared_images_are_told(tmp_path: Path) -> None:
    drawn = SyntheticRadiographs(2, 0, 1).read()
    first, second = (one.images[0] for one in drawn.train)
    train = [Record("t", "Does the radiograph show an opacity?", images=(first,))]
    test = [
        Record("same", "Does the radiograph show an opacity?", images=(first,)),
        Record("other picture", "Does the radiograph show an opacity?", images=(second,)),
        Record("other question", "Is the heart large?", images=(first,)),
    ]
    path = tmp_path / "trace.npz"
    TrainingTrace.of(train).save(path)
    found = overlap(TrainingTrace.load(path), test)
    assert found.contaminated == ("same",)
    assert found.to_json()["images"] == {
        "questions": 3,
        "same_file": 2,
        "near_duplicates": 0,
        "examples": ["same", "other question"],
    }
    (line,) = check_apart(train, test[1:], SyntheticRadiographs())
    assert "the images of 1 of 2 test questions are in the training set too (1 as the same file" in line
    assert len({content(one) for one in (*train, *test)}) == 3


def test_text_questions_read_no_image_library_and_leave_the_trace_as_it_was(tmp_path: Path) -> None:
    code = (
        "import sys, medqlora.data.images.shared as s, medqlora.evaluation.contamination as c\n"
        "from medqlora.data import JSONLines\nfrom medqlora.records import Record\n"
        "from pathlib import Path\n"
        "r = [Record('a', 'A question about a drug?')]\n"
        "s.shared_images(r, r); c.TrainingTrace.of(r).save(Path(sys.argv[1])); JSONLines(sys.argv[2]).read()\n"
        "print([name for name in ('PIL', 'pydicom', 'wfdb', 'torch') if name in sys.modules])\n"
    )
    rows = write_rows(tmp_path / "q.jsonl", [{"question": f"Is {n} so?", "answer": "yes"} for n in range(9)])
    words = [sys.executable, "-c", code, str(tmp_path / "t.npz"), str(rows)]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
    with np.load(tmp_path / "t.npz") as arrays:
        assert sorted(arrays) == ["hashes", "ids", "run_words", "version"]


def test_a_column_of_images_is_read_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number in range(3):
        write_image(tmp_path / "scans" / f"{number}.png", number)
    rows: list[dict[str, Any]] = [
        {"question": f"Is there a lesion ({number})?", "image": f"scans/{number % 3}.png", "answer": "no"}
        for number in range(12)
    ]
    rows[0]["image"] = ["scans/0.png", "scans/1.png"]
    rows[1]["image"] = None
    source = JSONLines(str(write_rows(tmp_path / "q.jsonl", rows)), dev_fraction=0)
    records = source.read().train
    assert [len(one.images) for one in records] == [2, 0, *[1] * 10]
    assert Path(records[2].images[0].path) == tmp_path / "scans" / "2.png"
    assert any("images of 11 rows from the column image" in line for line in source.remarks)
    rows[5]["image"] = "scans/9.png"
    with pytest.raises(
        InputError, match=r"q.jsonl:6: image: there is no image file .*9.png: correct the path"
    ):
        JSONLines(str(write_rows(tmp_path / "q.jsonl", rows))).read()


def test_a_text_files_column_of_that_name_is_left_alone(tmp_path: Path) -> None:
    rows = [
        {"question": f"Is {n} so?", "image": "https://example.org/x.png", "answer": "no"} for n in range(4)
    ]
    path = str(write_rows(tmp_path / "q.jsonl", rows))
    assert all(not one.images for one in JSONLines(path, dev_fraction=0).read().train)
    with pytest.raises(InputError, match="there is no image file"):
        JSONLines(path, fields={"images": "image"}).read()


def test_bytes_of_a_table_become_files_and_questions_of_an_image_stay_together(tmp_path: Path) -> None:
    import pandas as pd

    pictures = [write_image(tmp_path / f"{n}.png", n).read_bytes() for n in range(8)]
    rows = [
        {"question": f"Is {n} there?", "image": {"bytes": pictures[n % 8], "path": None}, "answer": "yes"}
        for n in range(64)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "q.parquet")
    splits = JSONLines(str(tmp_path / "q.parquet"), dev_fraction=0.3).read()
    sets = [{one.images[0].sha256 for one in part} for part in (splits.train, splits.dev)]
    assert len(sets[0]) + len(sets[1]) == 8
    assert sets[0].isdisjoint(sets[1])
    assert all(len(part) == 8 * len(found) for part, found in zip(splits, sets, strict=False))


def test_the_drawn_radiographs_are_the_same_again_and_differ_between_sets() -> None:
    source = SyntheticRadiographs(6, 4, 4)
    first, again = source.read(), source.read()
    assert first == again
    digests = [one.images[0].sha256 for part in first for one in part]
    assert len({*digests}) == 14
    assert [one.answer for one in first.dev].count("yes") == 2
    light = {answer: [] for answer in ("yes", "no")}
    for one in SyntheticRadiographs(40, 0, 1).read().train:
        light[str(one.answer)].append(float(np.asarray(read_pixels(one.images[0])).mean()))
    assert np.mean(light["yes"]) > np.mean(light["no"])
