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
option (`cop`) from 1. The test split has no answers, so scores are reported on the validation split.
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

HUB = "openlifescienceai/medmcqa"
SIZE = 4183

_OPTIONS = ("opa", "opb", "opc", "opd")

#: the harness's medmcqa (`utils_medmcqa.py`)
LM_EVAL = LMEvalChoice("Question: {question}\nChoices:\n")


@SOURCES.register("MedMCQA")
class MedMCQA(Exam):
    """MedMCQA, tested on its 4,183 validation questions as usual: its test split has no answers.

    The report has groups for its subjects and topics, and for questions of choice_type "multi" (which have one right
    option too). Training questions that are also validation questions are left out and counted in `remarks`.

    Args:
        test: a local copy of the validation set: the authors' `dev.json`, or the Hub's table as .jsonl,
            .json, .parquet or .arrow. Without it the Hub's `openlifescienceai/medmcqa` is read. The
            complete file decides whether right options are counted from 0 or 1.
        train: the training set, in the same shapes, or "hub"; none when null.
        dev: a dev set, in the same shapes; none when null. The benchmark has none besides its test set.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: accept a test file with fewer than 4,183 questions. Its scores are not comparable with
            reported ones.
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

    def _records(self, part: str, path: str | None, option: str) -> list[Record]:
        rows = self._rows(part, path, option)
        first = 0 if path is None else _first_option(rows, option, path)
        return [_record(row, first) for row in rows]


def _first_option(rows: Sequence[Row], option: str, path: str) -> int:
    """The number of the first option: 0 (the Hub counts 0 to 3) or 1 (the authors' files count 1 to 4).

    Raises:
        InputError: the rows have no answers, mix both ways, or have neither a 0 nor a 4, so both are possible.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row.value))
    if "cop" not in columns and "question" in columns:
        raise InputError(
            f"{option}: no row of {path} has the column 'cop' (the right option's number); there are "
            f"{listed(columns)}: rename it, or give a file with answers, like the validation split (dev.json)"
        )
    numbers = {fields.whole(row.value.get("cop")) for row in rows}
    if numbers <= {None, -1}:
        raise InputError(
            f"{option}: {path} has no answers (cop): MedMCQA's test split is without them: give the validation "
            "split (dev.json)"
        )
    if {0, 4} <= numbers:
        raise InputError(
            f"{option}: {path} has right options (cop) 0 and 4: the Hub counts from 0 to 3 and the authors' files "
            "from 1 to 4: give one of them, not a mixture"
        )
    if 0 not in numbers and 4 not in numbers:
        raise InputError(
            f"{option}: {path} has right options (cop) {listed(sorted(map(str, numbers)))} alone, which "
            "fits the Hub's count from 0 as well as the authors' from 1: give the whole file"
        )
    return 0 if 0 in numbers else 1


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
