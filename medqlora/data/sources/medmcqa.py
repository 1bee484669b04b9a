"""MedMCQA: four-option questions of the Indian medical entrance exams AIIMS and NEET PG.

Source: Pal et al. 2022, https://proceedings.mlr.press/v174/pal22a.html, https://github.com/medmcqa/medmcqa (MIT
licence). A row of https://huggingface.co/datasets/openlifescienceai/medmcqa, shortened at the dots:

    {"id": "45258d3d-b974-44dd-a161-c3fccbdadd88",
     "question": "Which of the following is not true for myelinated nerve fibers:",
     "opa": "Impulse through myelinated fibers is slower than non-myelinated fibers",
     "opb": "Membrane currents are generated at nodes of Ranvier",
     "opc": "Saltatory conduction of impulses is seen",
     "opd": "Local anesthesia is effective only when the nerve is not covered by myelin sheath",
     "cop": 0, "choice_type": "multi", "exp": null, "subject_name": "Physiology", "topic_name": null}

The authors' own `train.json` and `dev.json` have the same columns, an object a line, but count the right
option (`cop`) from 1. The test split has no answers, so what everyone reports is the validation split.
"""

from collections.abc import Mapping, Sequence

from medqlora.data import fields
from medqlora.data.prompts import Prompt
from medqlora.data.prompts.choice import LMEvalChoice
from medqlora.data.readers import Row
from medqlora.data.sources import benchmark
from medqlora.data.sources.exam import Exam
from medqlora.data.sources.source import SOURCES
from medqlora.data.wording import listed
from medqlora.errors import InputError
from medqlora.records import Record

HUB = "openlifescienceai/medmcqa"
SIZE = 4183

_OPTIONS = ("opa", "opb", "opc", "opd")

#: the harness's medmcqa (`utils_medmcqa.py`)
LM_EVAL = LMEvalChoice("Question: {question}\nChoices:\n")


@SOURCES.register("MedMCQA")
class MedMCQA(Exam):
    """MedMCQA, tested on its 4,183 validation questions, as everyone does: its test split has no answers.

    Its subjects and topics are groups to report by, and so are the questions of choice_type "multi", which
    have one right option all the same. Some training questions are validation questions too: these are left
    out of the training set and counted in `remarks`.

    Args:
        test: a local copy of the validation set: the authors' `dev.json`, or the Hub's table as .jsonl,
            .json, .parquet or .arrow. Without it the Hub's `openlifescienceai/medmcqa` is read. Whether
            right options are counted from 0 or 1 is told by the whole file.
        train: the training set, in the same shapes, or "hub"; none when null.
        dev: a dev set, in the same shapes; none when null. The benchmark has none besides its test set.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: take a test file that lacks some of the 4,183 questions. Scores are then not
            comparable with reported ones.
    """

    name = "MedMCQA"
    prompts: Mapping[str, Prompt] = {"lm_eval": LM_EVAL}

    hub = HUB
    splits: Mapping[str, str] = {"train": "train", "test": "validation"}

    def __init__(
        self,
        test: str | None = None,
        train: str | None = None,
        dev: str | None = None,
        revision: str | None = None,
        allow_partial: bool = False,
    ) -> None:
        if dev == benchmark.HUB_WORD:
            raise InputError(
                "--data.source.dev: 'hub' is the validation split, and MedMCQA is tested on that: give a file of "
                "other questions, or null"
            )
        super().__init__(test, train, dev, revision, allow_partial)

    def _check_size(self, test: Sequence[Record]) -> None:
        self._check_count(len(test), SIZE, "MedMCQA's validation set")

    def _from_hub(self, part: str, option: str) -> list[Record]:
        return [_record(row, 0) for row in self._hub_rows(part, option)]

    def _from_file(self, path: str, part: str, option: str) -> list[Record]:
        rows = self._file_rows(path, option)
        first = _counted_from(rows, option, path)
        return [_record(row, first) for row in rows]


def _counted_from(rows: Sequence[Row], option: str, path: str) -> int:
    """Whether right options are 0 to 3 (the Hub) or 1 to 4 (the authors' files), by all rows of a file.

    Raises:
        InputError: they have no answers, both ways are mixed, or neither a 0 nor a 4 is there to tell.
    """
    there = list(dict.fromkeys(column for row in rows for column in row.value))
    if "cop" not in there and "question" in there:
        raise InputError(
            f"{option}: no row of {path} has the column 'cop' (the right option's number); there are "
            f"{listed(there)}: rename it, or give a file with answers, like the validation split (dev.json)"
        )
    found = {fields.whole(row.value.get("cop")) for row in rows}
    if found <= {None, -1}:
        raise InputError(
            f"{option}: {path} has no answers (cop): MedMCQA's test split is without them: give the validation "
            "split (dev.json)"
        )
    if {0, 4} <= found:
        raise InputError(
            f"{option}: {path} has right options (cop) 0 and 4: the Hub counts from 0 to 3 and the authors' files "
            "from 1 to 4: give one of them, not a mixture"
        )
    if 0 not in found and 4 not in found:
        raise InputError(
            f"{option}: {path} has right options (cop) {listed(sorted(map(str, found)))} alone, which "
            "fits the Hub's count from 0 as well as the authors' from 1: give the whole file"
        )
    return 0 if 0 in found else 1


def _record(row: Row, first: int) -> Record:
    value = row.value
    lacking = [key for key in ("question", *_OPTIONS, "cop") if key not in value]
    if lacking:
        raise InputError(
            f"{row.where}: {lacking[0]} is missing: MedMCQA's rows have question, opa to opd and cop; read other "
            "data with class_path medqlora.data.JSONLines"
        )
    number = fields.whole(value["cop"])
    if number is None or not first <= number < first + len(_OPTIONS):
        raise fields.bad(row, "cop", value["cop"], f"give the right option's number, {first} to {first + 3}")
    subject = fields.text(row, "subject_name", value.get("subject_name"))
    topics = [subject, fields.text(row, "topic_name", value.get("topic_name"))]
    if value.get("choice_type") == "multi":
        topics.append("choice_type multi")
    return Record(
        id=fields.identity(row, "id", value.get("id")),
        question=fields.text(row, "question", value["question"], needed=True),
        options=benchmark.four_options(row, {key: value[key] for key in _OPTIONS}),
        labels=benchmark.LETTERS,
        answer=benchmark.LETTERS[number - first],
        long_answer=fields.text(row, "exp", value.get("exp")),
        topics=tuple(dict.fromkeys(topic for topic in topics if topic)),
        where=row.where,
        subject=subject,
    )
