"""SLAKE: questions in English and Chinese about radiology images, with their semantic labels.

Source: Liu et al. 2021, https://arxiv.org/abs/2102.09542, https://www.med-vqa.com/slake/ (CC BY 4.0), and
https://huggingface.co/datasets/BoKelvin/SLAKE. A row of `test.json`, whose images lie in `imgs`:

    {"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is used to take this image?",
     "answer": "MRI", "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN",
     "base_type": "vqa", "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": 0}
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from medqlora.data import fields
from medqlora.data.readers import Row
from medqlora.data.sources.source import SOURCES
from medqlora.data.sources.visual import Asked, VisualQuestions, answer_text
from medqlora.errors import InputError
from medqlora.records import Record

HUB = "BoKelvin/SLAKE"


@SOURCES.register("SLAKE")
class SLAKE(VisualQuestions):
    """SLAKE: questions about radiology images; the official test file has 2,094, English and Chinese.

    Its images come as an archive, so the files have to be local: `train.json`, `validate.json`, `test.json` and `imgs`.

    Args:
        test: the authors' `test.json`.
        train: their `train.json`; none when null.
        dev: their `validate.json`; none when null.
        images: the folder of the images; `imgs` beside the file when null.
        questions: "closed" for the questions that are answered by yes or no, "open" for the others, as free answers,
            or "all" of them, as free answers.
        language: "en", "zh", or "all".
        allow_partial: accept a test file with fewer questions. Its scores are not comparable with reported ones.
    """

    name = "SLAKE"
    topic_kind = "content"
    hub = HUB
    splits: Mapping[str, str] = {"train": "train", "dev": "validation", "test": "test"}
    sizes: Sequence[int] = (2094,)
    image_folder = "imgs"

    def __init__(
        self,
        test: str,
        train: str | None = None,
        dev: str | None = None,
        images: str | None = None,
        questions: Asked = "closed",
        language: Literal["en", "zh", "all"] = "en",
        allow_partial: bool = False,
    ) -> None:
        super().__init__(test, train, dev, images, questions, None, allow_partial)
        self._language = language

    def fingerprint(self) -> dict[str, object]:
        return {**super().fingerprint(), "language": self._language}

    def _hub_rows(self, part: str, option: str, config: str | None = None) -> list[Row]:
        raise InputError(
            f"{option} hub: SLAKE's images come as an archive: download {HUB}, unpack imgs.zip beside its files, and "
            f"pass {option} FOLDER/{part}.json"
        )

    def _wanted(self, row: Row) -> bool:
        return self._language in ("all", row.value.get("q_lang"))

    def _record(self, row: Row, default_id: str, path: str | None) -> Record:
        given = row.value.get("qid")
        topics = [
            fields.text(row, key, row.value.get(key)) for key in ("content_type", "modality", "location")
        ]
        identity = default_id if fields.is_missing(given) else f"slake-{fields.identity(row, 'qid', given)}"
        return Record(
            id=identity,
            question=fields.text(row, "question", row.value.get("question"), needed=True),
            labels=(),
            answer=answer_text(row, "answer"),
            topics=tuple(topic for topic in topics if topic),
            where=row.where,
            images=(self._image(row, "img_name", path),),
        )
