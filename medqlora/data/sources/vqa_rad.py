"""VQA-RAD: questions of clinicians about radiology images.

Source: Lau et al. 2018, https://doi.org/10.1038/sdata.2018.251, https://osf.io/89kps/ (CC0). Two shapes are read. A row
of the authors' `VQA_RAD Dataset Public.json`, whose images lie in `VQA_RAD Image Folder`; `phrase_type` says whether it
is a test question (`test_freeform`, `test_para`):

    {"qid": "0", "phrase_type": "freeform", "qid_linked_id": "03f451ca-de62-4617-9679-e836026a7642",
     "image_case_url": "https://medpix.nlm.nih.gov/case?id=…", "image_name": "synpic54610.jpg", "image_organ": "HEAD",
     "evaluation": "not evaluated", "question": "Are regions of the brain infarcted?", "question_type": "PRES",
     "answer": "Yes", "answer_type": "CLOSED"}

and of https://huggingface.co/datasets/flaviagiammarino/vqa-rad: {"image": …, "question": …, "answer": …}.
"""

from collections.abc import Mapping, Sequence

from medqlora.data import fields
from medqlora.data.readers import Row
from medqlora.data.sources.source import SOURCES
from medqlora.data.sources.visual import VisualQuestions, answer_text
from medqlora.records import Record

HUB = "flaviagiammarino/vqa-rad"


@SOURCES.register("VQARAD")
class VQARAD(VisualQuestions):
    """VQA-RAD: questions about radiology images, 451 of them in the official test set.

    The official sets share images: the same picture has test and training questions. A line says how many.

    Args:
        test: the authors' JSON, or the Hub's table as .parquet, .arrow or a folder of them. Without it the Hub's
            `flaviagiammarino/vqa-rad` is read.
        train: the same file for the training questions, or "hub"; none when null.
        dev: a validation file in the same shapes; none when null. The data set has none of its own.
        images: the folder of the images; `VQA_RAD Image Folder` beside the file when null.
        questions: "closed" for the questions that are answered by yes or no, "open" for the others, as free answers,
            or "all" of them, as free answers.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: accept a test file with fewer than 451 questions. Its scores are not comparable with
            reported ones.
    """

    name = "VQA-RAD"
    topic_kind = "question type"
    hub = HUB
    splits: Mapping[str, str] = {"train": "train", "test": "test"}
    sizes: Sequence[int] = (451,)
    image_folder = "VQA_RAD Image Folder"

    def _belongs(self, row: Row, part: str) -> bool:
        kind = row.value.get("phrase_type")
        if not isinstance(kind, str) or part == "dev":
            return True
        return kind.strip().startswith("test") == (part == "test")

    def _record(self, row: Row, default_id: str, path: str | None) -> Record:
        given = row.value.get("qid")
        column = "image_name" if "image_name" in row.value else "image"
        topics = [fields.text(row, key, row.value.get(key)) for key in ("image_organ", "question_type")]
        return Record(
            id=default_id if fields.is_missing(given) else fields.identity(row, "qid", given),
            question=fields.text(row, "question", row.value.get("question"), needed=True),
            labels=(),
            answer=answer_text(row, "answer"),
            topics=tuple(topic.strip() for topic in topics if topic.strip()),
            where=row.where,
            images=(self._image(row, column, path),),
        )
