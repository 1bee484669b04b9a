"""The medical subjects of MMLU: four-option questions of exams and textbooks.

Source: Hendrycks et al. 2021, https://arxiv.org/abs/2009.03300, https://github.com/hendrycks/test (MIT licence).
A row of the authors' `data/test/anatomy_test.csv`, which has no header:

    "A lesion causing compression of the facial nerve at the stylomastoid foramen will cause ipsilateral",
    paralysis of the facial muscles.,paralysis of the facial muscles and loss of taste.,
    "paralysis of the facial muscles, loss of taste and lacrimation.",
    "paralysis of the facial muscles, loss of taste, lacrimation and decreased salivation.",A

and of https://huggingface.co/datasets/cais/mmlu: {"question": "A lesion causing compression of …", "subject":
"anatomy", "choices": ["paralysis of the facial muscles.", …], "answer": 0}.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from medqlora.data import fields, readers
from medqlora.data.prompts import Prompt
from medqlora.data.prompts.lm_eval import LMEvalChoice
from medqlora.data.readers import Row
from medqlora.data.sources import benchmark
from medqlora.data.sources.exam import Exam
from medqlora.data.sources.source import SOURCES
from medqlora.errors import InputError
from medqlora.records import Record

HUB = "cais/mmlu"

#: subject → the number of its test questions; 1,089 together
SUBJECTS = {
    "anatomy": 135,
    "clinical_knowledge": 265,
    "college_biology": 144,
    "college_medicine": 173,
    "medical_genetics": 100,
    "professional_medicine": 272,
}

_CSV = {"train": "dev", "dev": "val", "test": "test"}
_COLUMNS = ("question", "A", "B", "C", "D", "answer")

#: the harness's mmlu_<subject> (`default/_default_template_yaml` and the description of each subject's file)
LM_EVAL = LMEvalChoice(
    "The following are multiple choice questions (with answers) about {subject}.\n\n{question.strip()}\n"
)


@SOURCES.register("MedicalMMLU")
class MedicalMMLU(Exam):
    """The six medical subjects of MMLU: 1,089 test questions.

    A question's subject is its topic in the report. Training and dev questions that the test set holds too are left
    out and counted in `remarks`.

    Args:
        test: a local copy of the test set: a folder with the authors' `<subject>_test.csv`, or the Hub's
            table as .parquet, .arrow, .jsonl or .json, whose other subjects are left out. Without it the
            Hub's `cais/mmlu` is read.
        train: MMLU's few-shot examples, five questions per subject (`<subject>_dev.csv`), in the same shapes, or
            "hub"; none when null.
        dev: the validation set (`<subject>_val.csv`), in the same shapes, or "hub"; none when null.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: accept a test set with fewer than 1,089 questions. Its scores are not comparable with
            reported ones.
    """

    name = "MMLU medical"
    prompts: Mapping[str, Prompt] = {"lm_eval": LM_EVAL}

    hub = HUB
    splits: Mapping[str, str] = {"train": "dev", "dev": "validation", "test": "test"}

    def _local_files(self, path: str, part: str) -> Sequence[str | Path]:
        return list(_tables(path, part).values()) or [path]

    def _check_size(self, test: Sequence[Record]) -> None:
        counts = Counter(record.subject for record in test)
        for subject, size in SUBJECTS.items():
            count = counts[_words(subject)]
            if count or not (self._allow_partial and test):
                self._check_count(count, size, f"MMLU's test set of {_words(subject)}")

    def _records(self, part: str, path: str | None, option: str) -> list[Record]:
        prefix = "" if part == "test" else f"{self.splits[part]}-"
        return [
            _record(row, subject, f"{subject}-{prefix}{index:03d}")
            for subject, rows in self._by_subject(part, path, option).items()
            for index, row in enumerate(rows)
        ]

    def _by_subject(self, part: str, path: str | None, option: str) -> Mapping[str, Sequence[Row]]:
        if path is None:
            return {subject: self._hub_rows(part, option, config=subject) for subject in SUBJECTS}
        tables = _tables(path, part)
        if not tables and Path(path).expanduser().is_dir() and not _holds_table(path):
            raise InputError(
                f"{option}: the folder {path} holds no <subject>_{_CSV[part]}.csv of "
                f"{', '.join(SUBJECTS)}: give the folder that has them"
            )
        if tables:
            return {s: readers.read_bare_csv(file, option, _COLUMNS) for s, file in tables.items()}
        return _grouped(self._rows(part, path, option))


def _words(subject: str) -> str:
    return subject.replace("_", " ")


def _tables(path: str, part: str) -> dict[str, Path]:
    """subject → the authors' file, for each subject that the folder has."""
    folder = Path(path).expanduser()
    named = {subject: folder / f"{subject}_{_CSV[part]}.csv" for subject in SUBJECTS}
    return {subject: file for subject, file in named.items() if file.is_file()}


def _holds_table(path: str) -> bool:
    """Whether a folder holds the Hub's table, rather than CSV files of other names."""
    try:
        return all(file.suffix != ".csv" for file in readers.data_files(path, ""))
    except InputError:
        return False


def _grouped(rows: list[Row]) -> dict[str, list[Row]]:
    """subject → its rows, in the file's order; rows of other subjects are left out."""
    by_subject: dict[str, list[Row]] = {subject: [] for subject in SUBJECTS}
    for row in rows:
        subject = fields.text(row, "subject", row.value.get("subject"), needed=True)
        if subject in by_subject:
            by_subject[subject].append(row)
    return by_subject


def _record(row: Row, subject: str, id_: str) -> Record:
    """The record of a row in either shape; a test question has the id that MIRAGE gives it: `anatomy-000`."""
    value = row.value
    if "A" in value:  # the authors' CSV
        texts = {letter: value.get(letter) for letter in benchmark.LETTERS}
        given = value.get("answer")
        given = given.strip() if isinstance(given, str) else given
        answer = fields.one_of(row, "answer", given, benchmark.LETTERS)
    else:
        choices = value.get("choices")
        if not isinstance(choices, (list, tuple)):
            raise fields.bad(row, "choices", choices, "give the list of the four options")
        texts = {f"choices[{number}]": text for number, text in enumerate(choices)}
        given = value.get("answer")
        answer = given if given in benchmark.LETTERS else benchmark.letter_of(row, "answer", given)
    return Record(
        id=id_,
        question=fields.text(row, "question", value.get("question"), needed=True),
        options=benchmark.four_options(row, texts),
        labels=benchmark.LETTERS,
        answer=answer,
        topics=(_words(subject),),
        where=row.where,
        subject=_words(subject),
    )
