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
from collections.abc import Mapping
from pathlib import Path

from medqlora.data import benchmark, fields, files
from medqlora.data.choice_prompt import LMEvalChoice
from medqlora.data.files import Row
from medqlora.data.hub import read_hub
from medqlora.data.prompts import Prompt
from medqlora.data.source import Source
from medqlora.errors import InputError
from medqlora.records import Record, Splits

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

_SPLITS = {"train": "dev", "dev": "validation", "test": "test"}
_CSV = {"train": "dev", "dev": "val", "test": "test"}
_COLUMNS = ("question", "A", "B", "C", "D", "answer")

#: the harness's mmlu_<subject> (`default/_default_template_yaml` and the description of each subject's file)
LM_EVAL = LMEvalChoice(
    "The following are multiple choice questions (with answers) about {subject}.\n\n{question.strip()}\n"
)


class MedicalMMLU(Source):
    """The six medical subjects of MMLU: 1,089 test questions.

    Each question's subject is its topic to report by. Questions of the training and dev set that the test set
    holds too are left out and counted in `remarks`.

    Args:
        test: a local copy of the test set: a folder with the authors' `<subject>_test.csv`, or the Hub's
            table as .parquet, .arrow, .jsonl or .json, whose other subjects are left out. Without it the
            Hub's `cais/mmlu` is read.
        train: what MMLU has to learn from, five questions a subject (`<subject>_dev.csv`), in the same
            shapes, or "hub"; none when null.
        dev: the validation set (`<subject>_val.csv`), in the same shapes, or "hub"; none when null.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: take a test set that lacks some of the 1,089 questions. Scores are then not
            comparable with reported ones.
    """

    name = "MMLU medical"
    prompts: Mapping[str, Prompt] = {"lm_eval": LM_EVAL}

    def __init__(
        self,
        test: str | None = None,
        train: str | None = None,
        dev: str | None = None,
        revision: str | None = None,
        allow_partial: bool = False,
    ) -> None:
        self._paths = {"test": test, "train": train, "dev": dev}
        self._revision, self._allow_partial = revision, allow_partial

    def fingerprint(self) -> dict[str, object]:
        values = {**self._paths, "revision": self._revision, "allow_partial": self._allow_partial}
        local: list[object] = []
        for part, path in self._paths.items():
            if path not in (None, benchmark.HUB_WORD):
                local += list(_tables(str(path), part).values()) or [path]
        return benchmark.fingerprint(self.name, values, local)

    def read(self) -> Splits:
        splits = Splits(*(self._part(part) for part in Splits._fields))
        held = Counter(record.subject for record in splits.test)
        for subject, size in SUBJECTS.items():
            if held[_words(subject)] or not (self._allow_partial and splits.test):
                benchmark.check_size(
                    held[_words(subject)],
                    size,
                    f"MMLU's test set of {_words(subject)}",
                    self._paths["test"] or HUB,
                    allow_partial=self._allow_partial,
                )
        splits, self.remarks = benchmark.kept_apart(splits)
        return splits

    def _part(self, part: str) -> list[Record]:
        path, option = self._paths[part], f"--data.source.{part}"
        if path is None and part != "test":
            return []
        if path is None or path == benchmark.HUB_WORD:
            fix = benchmark.local_copy(option)
            by_subject = {
                subject: read_hub(HUB, subject, _SPLITS[part], self._revision, option, fix)
                for subject in SUBJECTS
            }
        elif tables := _tables(path, part):
            by_subject = {
                subject: files.read_bare_csv(file, option, _COLUMNS) for subject, file in tables.items()
            }
        else:
            if Path(path).expanduser().is_dir() and not _holds_table(path):
                raise InputError(
                    f"{option}: the folder {path} holds no <subject>_{_CSV[part]}.csv of "
                    f"{', '.join(SUBJECTS)}: give the folder that has them"
                )
            by_subject = _grouped(files.read_rows(path, option))
        return [
            _record(row, subject, part, index)
            for subject, rows in by_subject.items()
            for index, row in enumerate(rows)
        ]


def _words(subject: str) -> str:
    return subject.replace("_", " ")


def _tables(path: str, part: str) -> dict[str, Path]:
    """subject → the authors' file of it; those that the folder holds."""
    folder = Path(path).expanduser()
    named = {subject: folder / f"{subject}_{_CSV[part]}.csv" for subject in SUBJECTS}
    return {subject: file for subject, file in named.items() if file.is_file()}


def _holds_table(path: str) -> bool:
    """Whether a folder holds the Hub's table, rather than CSV files of other names."""
    try:
        return all(file.suffix != ".csv" for file in files.data_files(path, ""))
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


def _record(row: Row, subject: str, part: str, index: int) -> Record:
    """A row of either shape, with the id that MIRAGE gives it: `anatomy-000`."""
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
        id=f"{subject}-{index:03d}" if part == "test" else f"{subject}-{_SPLITS[part]}-{index:03d}",
        question=fields.text(row, "question", value.get("question"), needed=True),
        options=benchmark.four_options(row, texts),
        labels=benchmark.LETTERS,
        answer=answer,
        topics=(_words(subject),),
        where=row.where,
        subject=_words(subject),
    )
