"""PathVQA: questions about pathology images of textbooks.

Source: He et al. 2020, https://arxiv.org/abs/2003.10286, as published (MIT) in
https://huggingface.co/datasets/flaviagiammarino/path-vqa. A row of its Parquet files:

    {"image": {"bytes": b"\\xff\\xd8\\xff…", "path": null}, "answer": "in the canals of hering",
     "question": "Where are liver stem cells (oval cells) located?"}

The authors' own release holds its questions in pickled Python objects, which run code when they are read. It is not
read here.
"""

from collections.abc import Mapping, Sequence

from medqlora.data import fields
from medqlora.data.readers import Row
from medqlora.data.sources.source import SOURCES
from medqlora.data.sources.visual import VisualQuestions, answer_text
from medqlora.records import Record

HUB = "flaviagiammarino/path-vqa"


@SOURCES.register("PathVQA")
class PathVQA(VisualQuestions):
    """PathVQA: questions about pathology images; 6,719 test questions without duplicates.

    Args:
        test: the Hub's test set as .parquet, .arrow or a folder of them. Without it the Hub's
            `flaviagiammarino/path-vqa` is read.
        train: the training set in the same shape, or "hub"; none when null.
        dev: the validation set in the same shape, or "hub"; none when null.
        images: the folder of the images, where a file names them.
        questions: "closed" for the questions that are answered by yes or no, "open" for the others, as free answers,
            or "all" of them, as free answers.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: accept a test file with fewer questions. Its scores are not comparable with reported ones.
    """

    name = "PathVQA"
    hub = HUB
    splits: Mapping[str, str] = {"train": "train", "dev": "validation", "test": "test"}
    #: the Hub's, without duplicates, and the authors'
    sizes: Sequence[int] = (6719, 6761)

    def _record(self, row: Row, default_id: str, path: str | None) -> Record:
        return Record(
            id=default_id,
            question=fields.text(row, "question", row.value.get("question"), needed=True),
            labels=(),
            answer=answer_text(row, "answer"),
            where=row.where,
            images=(self._image(row, "image", path),),
        )
