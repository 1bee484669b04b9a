"""BioASQ, task B: yes/no questions of biomedical experts, with the snippets of PubMed that answer them.

Source: Tsatsaronis et al. 2015, https://doi.org/10.1186/s12859-015-0564-6. Its authors give the files to registered
users: https://participants-area.bioasq.org/datasets. A file holds {"questions": […]}; one yes/no question, shortened
at the dots:

    {"id": "64041e97201352f04a00001e", "type": "yesno", "body": "Is daridorexant effective for insomnia?",
     "documents": ["http://www.ncbi.nlm.nih.gov/pubmed/35298826", …],
     "snippets": [{"text": "Daridorexant … being developed for the treatment of insomnia.",
                   "document": "http://www.ncbi.nlm.nih.gov/pubmed/35298826", "beginSection": "abstract", …}, …],
     "exact_answer": "yes",
     "ideal_answer": ["Yes. Daridorexant is … developed for the treatment of insomnia."]}

`exact_answer` and `ideal_answer` give the answer away. Older files have an `ideal_answer` that is one text.
"""

from pathlib import Path

from medqlora.data import fields, readers
from medqlora.data.readers import Row
from medqlora.data.sources import benchmark
from medqlora.data.sources.source import SOURCES, Source
from medqlora.data.test_sets import by_id
from medqlora.data.wording import shown
from medqlora.errors import InputError
from medqlora.records import Record, Splits

LABELS = ("yes", "no")


@SOURCES.register("BioASQ")
class BioASQ(Source):
    """The yes/no questions of BioASQ's task B, from local files, which its authors give to registered users.

    Questions of other types are left out and counted in `remarks`. So are training and dev questions that the test
    set holds too, or whose snippets are from an abstract of PubMedQA's test set. The size is not checked, since each
    year has other test batches.

    Args:
        test: the test questions with their answers: a JSON file, or a folder of them (the batches of a
            year, `12B1_golden.json` to `12B4_golden.json`).
        train: the training questions, as `test`; none when null.
        dev: the dev questions, as `test`; none when null.
        context: whether the prompt holds the snippets, or the question alone.
    """

    name = "BioASQ"

    def __init__(
        self, test: str, train: str | None = None, dev: str | None = None, context: bool = True
    ) -> None:
        for part, path in (("test", test), ("train", train), ("dev", dev)):
            if path == benchmark.HUB_WORD:
                raise InputError(
                    f"--data.source.{part}: 'hub': BioASQ is handed out by its authors alone: download it at "
                    "https://participants-area.bioasq.org/datasets and give the file"
                )
        self._paths = {"test": test, "train": train, "dev": dev}
        self._context = context

    def fingerprint(self) -> dict[str, object]:
        values = {**self._paths, "context": self._context}
        local: list[object] = []
        for path in self._paths.values():
            local += [] if path is None else _files(path, "") or [path]
        return benchmark.fingerprint(self.name, values, local)

    def read(self) -> Splits:
        remarks: list[str] = []
        parts = Splits(*(self._part(part, remarks) for part in Splits._fields))
        splits, shared = benchmark.kept_apart(parts, check=self.checks_test_questions)
        self.remarks = (*remarks, *shared)
        return splits

    def _part(self, part: str, remarks: list[str]) -> list[Record]:
        path, option = self._paths[part], f"--data.source.{part}"
        if path is None:
            return []
        rows = [row for file in _files(path, option) for row in _rows(file, option)]
        remarks.append(f"{Path(path).name}: {len(rows):,} questions of BioASQ's task B")
        yes_no = [row for row in rows if row.value.get("type") == "yesno"]
        if not yes_no:
            raise InputError(f"{option}: {path} holds no question of the type yesno: give a file of task B")
        kept = yes_no if part == "test" else [row for row in yes_no if not _of_pubmedqa(row)]
        for count, why in (
            (len(rows) - len(yes_no), "are of other types than yesno"),
            (len(yes_no) - len(kept), "are on abstracts of PubMedQA's test set"),
        ):
            if count:
                remarks.append(f"{count:,} of {len(rows):,} {part} questions {why}, and left out")
        return [_record(row, self._context) for row in kept]


def _files(path: str, option: str) -> list[Path]:
    location = Path(path).expanduser()
    if not location.is_dir():
        return readers.data_files(path, option) if option else [location]
    files = sorted(location.glob("*.json"))
    if option and not files:
        raise InputError(f"{option}: the folder {path} holds no .json: give BioASQ's files")
    return files


def _rows(file: Path, option: str) -> list[Row]:
    content = readers.read_json(file, option)
    questions = content.get("questions") if isinstance(content, dict) else None
    if not isinstance(questions, list):
        raise InputError(f"{file}: holds no list 'questions': give a file of BioASQ's task B")
    rows = []
    for number, value in enumerate(questions, 1):
        if not isinstance(value, dict):
            raise InputError(f"{file}: question {number} is {shown(value)}: each has to be an object")
        rows.append(Row(f"{file}: question {number}", number, None, value, str(file)))
    return rows


def _snippets(row: Row) -> list[dict[str, object]]:
    given = row.value.get("snippets")
    if fields.is_missing(given):
        return []
    if not isinstance(given, list) or not all(isinstance(snippet, dict) for snippet in given):
        raise fields.bad(row, "snippets", given, "give a list of objects with text")
    return given


def _of_pubmedqa(row: Row) -> bool:
    """Whether a snippet is from an abstract that is a test question of PubMedQA."""
    cited = [str(snippet.get("document", "")) for snippet in _snippets(row)]
    return by_id(Record(id="", question="", aliases=tuple(cited))) is not None


def _record(row: Row, context: bool) -> Record:
    value = row.value
    answer = value.get("exact_answer")
    if isinstance(answer, list) and len(answer) == 1:  # as in some older files
        answer = answer[0]
    if isinstance(answer, str):
        answer = answer.strip().rstrip(".").lower()
    ideal = fields.texts(row, "ideal_answer", value.get("ideal_answer"))
    texts = [fields.text(row, "snippets: text", snippet.get("text")) for snippet in _snippets(row)]
    return Record(
        id=fields.identity(row, "id", value.get("id")),
        question=fields.text(row, "body", value.get("body"), needed=True),
        contexts=tuple(text for text in texts if text) if context else (),
        labels=LABELS,
        answer=fields.one_of(row, "exact_answer", answer, LABELS),
        long_answer=ideal[0] if ideal else "",
        where=row.where,
    )
