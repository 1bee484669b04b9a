"""VQA-RAD, SLAKE, PathVQA and PTB-XL, on small files in the published formats."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_vision_models import write_image

from medqlora.data import SLAKE, VQARAD, ECGImages, PathVQA
from medqlora.data.images.ecg import LEADS, PIXELS_PER_MM, draw_ecg
from medqlora.errors import InputError

PART = {"allow_partial": True}


@pytest.fixture
def vqa_rad(tmp_path: Path) -> Path:
    """The authors' JSON and image folder."""
    folder = tmp_path / "VQA_RAD Image Folder"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"synpic{number}.jpg.png", number).rename(folder / f"synpic{number}.jpg")
    given = [
        ("freeform", 0, "Are regions of the brain infarcted?", "Yes", "CLOSED"),
        ("freeform", 1, "What is the plane?", "axial", "OPEN"),
        ("para", 0, "Is the brain infarcted? ", "no ", "CLOSED"),
        ("test_freeform", 0, "Is there a mass?", "No", "CLOSED"),
        ("test_para", 2, "How many lesions are there?", 2, "OPEN"),
    ]
    rows = [
        {
            "qid": str(number),
            "phrase_type": kind,
            "image_name": f"synpic{image}.jpg",
            "image_organ": "HEAD",
            "question": question,
            "question_type": "PRES",
            "answer": answer,
            "answer_type": answer_type,
        }
        for number, (kind, image, question, answer, answer_type) in enumerate(given)
    ]
    path = tmp_path / "VQA_RAD Dataset Public.json"
    path.write_text(json.dumps(rows))
    return path


def test_vqa_rad_has_its_official_split_by_phrase_type(vqa_rad: Path) -> None:
    closed = VQARAD(str(vqa_rad), train=str(vqa_rad), **PART).read()
    assert [(one.id, one.answer, one.labels) for one in closed.train] == [
        ("0", "yes", ("yes", "no")),
        ("2", "no", ("yes", "no")),
    ]
    assert [(one.id, one.answer) for one in closed.test] == [("3", "no")]
    assert closed.train[0].topics == ("HEAD", "PRES")
    assert Path(closed.test[0].images[0].path).name == "synpic0.jpg"
    opened = VQARAD(str(vqa_rad), train=str(vqa_rad), questions="open", **PART).read()
    assert [(one.answer, one.labels) for one in (*opened.train, *opened.test)] == [("axial", ()), ("2", ())]
    every = VQARAD(str(vqa_rad), train=str(vqa_rad), questions="all", **PART).read()
    assert [len(part) for part in every] == [3, 0, 2]
    assert all(not one.labels for part in every for one in part)
    with pytest.raises(InputError, match=r"holds 2 of the 451 questions of VQA-RAD's test set"):
        VQARAD(str(vqa_rad)).read()
    with pytest.raises(InputError, match=r"--data.source.dev: VQA-RAD has no dev set"):
        VQARAD(str(vqa_rad), dev="hub", **PART).read()
    (vqa_rad.parent / "VQA_RAD Image Folder" / "synpic0.jpg").unlink()
    with pytest.raises(
        InputError, match=r"image_name: there is no image file .*synpic0.jpg: correct the path"
    ):
        VQARAD(str(vqa_rad), **PART).read()


def test_slake_is_read_by_language(tmp_path: Path) -> None:
    (tmp_path / "imgs" / "xmlab1").mkdir(parents=True)
    write_image(tmp_path / "imgs" / "xmlab1" / "source.png").rename(
        tmp_path / "imgs" / "xmlab1" / "source.jpg"
    )
    base = {"img_id": 1, "img_name": "xmlab1/source.jpg", "location": "Abdomen", "modality": "MRI"}
    base |= {"base_type": "vqa", "triple": ["vhead", "_", "_"]}
    rows: list[dict[str, Any]] = [
        {"question": "What modality is used?", "answer": "MRI", "q_lang": "en", "answer_type": "OPEN"},
        {"question": "Is the liver healthy?", "answer": "Yes", "q_lang": "en", "answer_type": "CLOSED"},
        {"question": "肝脏健康吗?", "answer": "是", "q_lang": "zh", "answer_type": "CLOSED"},
    ]
    rows = [{**base, **row, "content_type": "Organ", "qid": 11000 + n} for n, row in enumerate(rows)]
    test = tmp_path / "test.json"
    test.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (one,) = SLAKE(str(test), **PART).read().test
    assert (one.id, one.answer, one.labels) == ("slake-11001", "yes", ("yes", "no"))
    assert one.topics == ("Organ", "MRI", "Abdomen")
    assert [each.answer for each in SLAKE(str(test), questions="all", language="zh", **PART).read().test] == [
        "是"
    ]
    assert len(SLAKE(str(test), questions="all", language="all", **PART).read().test) == 3
    with pytest.raises(InputError, match=r"download BoKelvin/SLAKE, unpack imgs.zip beside its files"):
        SLAKE(str(test), train="hub", **PART).read()


def test_path_vqa_reads_the_images_in_its_tables(tmp_path: Path) -> None:
    import pandas as pd

    def table(name: str, rows: list[tuple[int, str, str]]) -> str:
        pictures = [write_image(tmp_path / f"{name}{image}.png", image).read_bytes() for image, _, _ in rows]
        frame = [
            {"image": {"bytes": picture, "path": None}, "question": question, "answer": answer}
            for picture, (_, question, answer) in zip(pictures, rows, strict=True)
        ]
        pd.DataFrame(frame).to_parquet(tmp_path / f"{name}.parquet")
        return str(tmp_path / f"{name}.parquet")

    test = table("test", [(0, "Is necrosis present?", "yes"), (1, "Where is it?", "in the canals of hering")])
    train = table("train", [(0, "Is necrosis present?", "yes"), (2, "Is necrosis present?", "no")])
    source = PathVQA(test, train=train, **PART)
    splits = source.read()
    # the same words about the same picture are the test's; about another picture they are another question
    assert [one.answer for one in splits.train] == ["no"]
    assert "1 of 2 train questions are in dev or test too, and left out" in " ".join(source.remarks)
    assert [one.answer for one in splits.test] == ["yes"]
    assert [one.answer for one in PathVQA(test, questions="open", **PART).read().test] == [
        "in the canals of hering"
    ]


@pytest.fixture
def ptb_xl(tmp_path: Path) -> Path:
    """Twelve leads of a second and a half, as PTB-XL's records."""
    import wfdb

    rows = ["ecg_id,patient_id,scp_codes,strat_fold,filename_lr,filename_hr"]
    folds = (
        (1, "{'NORM': 100.0, 'SR': 0.0}"),
        (9, "{'AFIB': 0.0}"),
        (10, "{'NORM': 80.0}"),
        (10, "{'IMI': 15.0}"),
    )
    (tmp_path / "records500").mkdir()
    for number, (fold, codes) in enumerate(folds, 1):
        name = f"{number:05d}_hr"
        times = np.arange(5000) / 500
        signal = np.stack(
            [np.sin(2 * np.pi * (1 + 0.1 * n + 0.01 * number) * times) for n in range(12)], axis=1
        )
        wfdb.wrsamp(
            name, fs=500, units=["mV"] * 12, sig_name=[lead.upper() for lead in LEADS], p_signal=signal,
            fmt=["16"] * 12, write_dir=str(tmp_path / "records500"),
        )  # fmt: skip
        rows.append(f'{number},15709.0,"{codes}",{fold},records100/{name},records500/{name}')
    (tmp_path / "ptbxl_database.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_ptb_xl_is_drawn_by_the_recommended_folds(ptb_xl: Path) -> None:
    source = ECGImages(str(ptb_xl))
    splits = source.read()
    assert [[(one.id, one.answer) for one in part] for part in splits] == [
        [("ecg-1", "yes")],
        [("ecg-2", "no")],
        [("ecg-3", "yes"), ("ecg-4", "no")],
    ]
    assert splits.dev[0].topics == ("AFIB",)
    assert splits == source.read()
    other = ECGImages(str(ptb_xl), code="AFIB", question="Is there atrial fibrillation?", limit=1).read()
    assert [one.answer for part in other for one in part] == ["no", "yes", "no"]
    (ptb_xl / "records500" / "00004_hr.dat").unlink()
    with pytest.raises(InputError, match=r"ptbxl_database.csv:5: filename_hr: .*00004_hr.dat can't be read"):
        source.read()


def test_an_electrocardiogram_has_the_papers_scale_and_is_drawn_alike_twice() -> None:
    flat = {lead: np.zeros(5000) for lead in LEADS}
    pulse = np.zeros(5000)
    pulse[500:1000] = 1.0  # the second second, at 1 mV
    drawn = draw_ecg({**flat, "I": pulse}, 500)
    assert drawn.tobytes() == draw_ecg({**flat, "I": pulse}, 500).tobytes()
    assert drawn.size == (260 * PIXELS_PER_MM, 130 * PIXELS_PER_MM)
    pixels = np.asarray(drawn.convert("L"), dtype=int)
    traced = pixels < 60
    middle, left = (5 + 15) * PIXELS_PER_MM, 5 * PIXELS_PER_MM
    second = 25 * PIXELS_PER_MM
    plateau = np.flatnonzero(traced[: middle - 5, left + second + second // 2])
    # 1 mV is 10 mm above the line; a trace is two pixels wide
    assert abs(plateau.mean() - (middle - 10 * PIXELS_PER_MM)) <= 1
    assert traced[middle - 1 : middle + 1, left + second // 2].any()
    gaps = draw_ecg({**flat, "II": np.full(5000, np.nan)}, 500)
    assert (np.asarray(gaps.convert("L")) < 60).sum() < traced.sum()
    assert isinstance(drawn, Image.Image)
