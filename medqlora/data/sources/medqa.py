"""MedQA: four-option questions in the style of the United States Medical Licensing Examination (USMLE).

Source: Jin et al. 2020, https://arxiv.org/abs/2009.13081, https://github.com/jind11/MedQA. Two shapes are
read. A row of the authors' JSONL with four options (`questions/US/4_options/phrases_no_exclude_test.jsonl`, and
https://huggingface.co/datasets/GBaker/MedQA-USMLE-4-options), shortened at the dots:

    {"question": "A junior orthopaedic surgery resident is completing a carpal tunnel repair with the …",
     "answer": "Tell the attending that he cannot fail to disclose this mistake",
     "options": {"A": "Disclose the error to the patient and put it in the operative report",
                 "B": "Tell the attending that he cannot fail to disclose this mistake",
                 "C": "Report the physician to the ethics committee", "D": "Refuse to dictate the operative report"},
     "meta_info": "step1", "answer_idx": "B", "metamap_phrases": ["junior orthopaedic surgery resident", …]}

and of https://huggingface.co/datasets/GBaker/MedQA-USMLE-4-options-hf, which lm-evaluation-harness reads:

    {"id": "test-00000", "sent1": "A junior orthopaedic surgery resident is completing …", "sent2": "",
     "ending0": "Disclose the error …", "ending1": …, "ending2": …, "ending3": …, "label": 1}
"""

from collections.abc import Mapping, Sequence

from medqlora.data import fields
from medqlora.data.prompts import Prompt
from medqlora.data.prompts.lm_eval import LMEvalChoice
from medqlora.data.readers import Row
from medqlora.data.sources import benchmark
from medqlora.data.sources.exam import Exam
from medqlora.data.sources.source import SOURCES
from medqlora.data.wording import listed
from medqlora.errors import InputError
from medqlora.records import Record

HUB = "GBaker/MedQA-USMLE-4-options-hf"
SIZE = 1273

#: the harness's medqa_4options (`preprocess_medqa.py`)
LM_EVAL = LMEvalChoice("Question: {question}\n")


@SOURCES.register("MedQA")
class MedQA(Exam):
    """MedQA with four options (USMLE): 1,273 test questions.

    Training and dev questions that the test set holds too are left out and counted in `remarks`. Where the file has
    the exam's step, it is a topic of the report.

    Args:
        test: a local copy of the test set: the authors' JSONL, or the Hub's table as .jsonl, .json, .parquet
            or .arrow. Without it the Hub's `GBaker/MedQA-USMLE-4-options-hf` is read.
        train: the training set, in the same shapes, or "hub"; none when null.
        dev: the dev set, in the same shapes, or "hub"; none when null.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: accept a test file with fewer than 1,273 questions. Its scores are not comparable with
            reported ones.
    """

    name = "MedQA"
    prompts: Mapping[str, Prompt] = {"lm_eval": LM_EVAL}

    hub = HUB
    splits: Mapping[str, str] = {"train": "train", "dev": "validation", "test": "test"}

    def _check_size(self, test: Sequence[Record]) -> None:
        self._check_count(len(test), SIZE, "MedQA's test set")

    def _records(self, part: str, path: str | None, option: str) -> list[Record]:
        rows = self._rows(part, path, option)
        return [_record(row, f"{part}-{index:05d}") for index, row in enumerate(rows)]


def _record(row: Row, default_id: str) -> Record:
    """The record of a row in either shape; without an id, it gets the one that the Hub's row has at this position."""
    value = row.value
    given_id = value.get("id")
    id_ = default_id if fields.is_missing(given_id) else fields.identity(row, "id", given_id)
    if "sent1" in value:
        texts = {f"ending{number}": value.get(f"ending{number}") for number in range(4)}
        return Record(
            id=id_,
            question=fields.text(row, "sent1", value["sent1"], needed=True),
            options=benchmark.four_options(row, texts),
            labels=benchmark.LETTERS,
            answer=benchmark.letter_of(row, "label", value.get("label")),
            where=row.where,
        )
    given = value.get("options")
    if not isinstance(given, dict) or "question" not in value:
        raise InputError(
            f"{row.where}: neither the authors' shape (question, options, answer_idx) nor the Hub's (sent1, "
            f"ending0, label); its keys are {listed(list(value)[:8])}: read other data with "
            "class_path medqlora.data.JSONLines"
        )
    # a column of structs in Parquet has every letter in every row, null where the question has fewer
    given = {letter: text for letter, text in given.items() if text is not None}
    options = benchmark.four_options(row, given)
    if tuple(given) != benchmark.LETTERS:
        raise fields.bad(row, "options", given, "give the letters A to D in their order")
    answer = fields.one_of(row, "answer_idx", value.get("answer_idx"), benchmark.LETTERS)
    named = [letter for letter, text in options.items() if text == value.get("answer")]
    if named and answer not in named:
        raise fields.bad(
            row, "answer_idx", answer, f"its answer is the text of option {named[0]}: correct one"
        )
    step = fields.text(row, "meta_info", value.get("meta_info"))
    return Record(
        id=id_,
        question=fields.text(row, "question", value["question"], needed=True),
        options=options,
        labels=benchmark.LETTERS,
        answer=answer,
        topics=(step,) if step else (),
        where=row.where,
    )
