"""A user's own medical question set, as JSONL, JSON, CSV, Excel or Parquet.

Source: the user's files. One row as JSONL, with the default column names:

    {"id": "ward-7", "question": "Is aspirin of use here?", "contexts": ["METHODS …", "RESULTS …"],
     "answer": "yes", "long_answer": "It halved the risk.", "topics": ["Cardiology"]}

multiple choice:

    {"question": "Which drug is a beta blocker?", "options": {"A": "Aspirin", "B": "Atenolol"}, "answer": "B"}

a question about images, whose paths are taken from the file's folder:

    {"question": "Is there an effusion?", "images": ["xr/ward-7.png"], "answer": "yes"}

and a free answer, with `labels: []`: {"question": "What is a beta blocker?", "answer": "A drug that …"}.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from medqlora.data import readers, set_warnings
from medqlora.data.bad_records import OnBadRecord, check_choice, remarks_on
from medqlora.data.checks import content, reject_shared_content, unique_ids, usable
from medqlora.data.own_ids import OwnIds, counts_rows, with_other_ids
from medqlora.data.readers import Row
from medqlora.data.shapes import FIELDS, Labels, Table
from medqlora.data.shapes.columns import key as column_key
from medqlora.data.sources.source import SOURCES, Source
from medqlora.data.test_sets import reject_test_questions
from medqlora.data.wording import listed
from medqlora.errors import InputError
from medqlora.records import YES_NO_MAYBE, BadRecord, Record, Splits

#: a word as YAML reads it: `yes` becomes true, and `1` a number
Word = str | bool | int | float

#: keys of columns whose values may identify a question elsewhere
_ID_COLUMNS = frozenset(
    ("pmid", "pubid", "pubmedid", "pubmed", "id", "key", "qid", "questionid", "docid", "documentid")
)
#: keys of columns that may hold the address of a question's paper
_ADDRESS_COLUMNS = frozenset(("url", "uri", "link", "source", "pubmedurl", "pubmedlink", "sourceurl"))
_PUBMED = re.compile(
    r"https?://(?:www\.)?(?:pubmed\.ncbi\.nlm\.nih\.gov|ncbi\.nlm\.nih\.gov/pubmed)/\d+/?", re.IGNORECASE
)


@SOURCES.register("JSONLines")
class JSONLines(Source):
    """A user's own question set: a training file, and optional files for validation and test.

    Args:
        train: the training file: .jsonl, .json, .csv, .tsv, .xlsx, .parquet or .arrow, also compressed (.gz, .bz2,
            .xz, .zst, .zip), or a folder of Hugging Face's datasets.
        dev: the validation file, which also selects the best checkpoint. Without it, a part of the training file is
            set aside.
        test: the test file.
        dev_fraction: the part of the training file to set aside without `dev`: 0.1 for a tenth, 0 for none. The hash
            of each id decides, so the selection does not depend on the order of the rows.
        fields: our name of a column → the file's, for id, question, contexts, answer, long_answer, options, topics and
            images. `options` may name several columns, with commas: {"options": "opa,opb,opc,opd"}. Without it, usual
            names are found, and chat and instruction data are recognised.
        labels: the possible answers, in a fixed order, as a list or with commas; or a mapping from the file's values:
            {0: no, 1: yes}. Without it: yes, no, maybe, or the options' letters for multiple choice. An empty list
            means free answers. Numbers in the file count the labels.
        answer_index: the first number of an option or a label in the file, 0 or 1; null takes it from the complete
            file.
        on_bad_record: the handling of an unusable record: "error" stops with its file and line, "skip" leaves it out,
            counts it and lists it in the run's folder. A benchmark's test question in the training or validation set
            is always an error, and so is a file without a usable record.
        encoding: the encoding of the text files ("cp1252", "utf-16", …); detected when null.
        sheet: the sheet of an Excel workbook; the first when null.
    """

    name = "JSONLines"

    def __init__(
        self,
        train: str,
        dev: str | None = None,
        test: str | None = None,
        dev_fraction: float = 0.1,
        fields: dict[str, Word] | None = None,
        labels: list[Word] | dict[Word, Word] | str | None = None,
        answer_index: Literal[0, 1] | None = None,
        on_bad_record: OnBadRecord = "error",
        encoding: str | None = None,
        sheet: str | None = None,
    ) -> None:
        check_choice(on_bad_record)
        if not 0 <= dev_fraction < 1:
            raise InputError(
                f"--data.source.dev_fraction: {dev_fraction} is no fraction: give 0 or more, below 1"
            )
        for key in fields or {}:
            if key not in FIELDS:
                raise InputError(
                    f"--data.source.fields: {key!r} is none of our columns: use {', '.join(FIELDS)}"
                )
        if answer_index not in (None, 0, 1) or isinstance(answer_index, bool):
            raise InputError(f"--data.source.answer_index: {answer_index!r}: give 0, 1 or null")
        self._paths = {"train": train, "dev": dev, "test": test}
        self._dev_fraction = dev_fraction
        self._fields = dict(fields or {})
        self._given_labels = (
            [part.strip() for part in labels.split(",")] if isinstance(labels, str) else labels
        )
        self._labels = _labels(self._given_labels)
        self._answer_index = answer_index
        self._on_bad_record = on_bad_record
        self._reading = readers.ReadOptions(encoding, sheet)
        self._first_ids: dict[str, str] = {}
        self.skipped: list[BadRecord] = []

    def fingerprint(self) -> dict[str, object]:
        return {
            "source": self.name,
            **self._paths,
            "dev_fraction": self._dev_fraction,
            "fields": self._fields,
            "labels": _plain(self._given_labels),
            "answer_index": self._answer_index,
            "on_bad_record": self._on_bad_record,
            "encoding": self._reading.encoding,
            "sheet": self._reading.sheet,
            "files": {path: readers.fingerprint(path) for path in self._paths.values() if path is not None},
        }

    def same_data(self, recorded: Mapping[str, object]) -> bool:
        """Whether the training file is the same, by its path or by its bytes."""
        current = self.fingerprint()
        same_file = recorded.get("train") == current["train"]
        return super().same_data(recorded) and (same_file or bool(_digests(recorded) & _digests(current)))

    def read(self) -> Splits:
        self.skipped, self.remarks, self._first_ids = [], (), {}
        skipped = {name: self._list_of_skipped() for name in self._paths}
        understood: dict[str, str] = {}
        tables: dict[str, Table] = {}
        for name, path in self._paths.items():
            if path is not None:
                tables[name], understood[name] = self._table(name, path, skipped[name])
        free = all(table.free for table in tables.values())
        for table in tables.values():
            table.free = free  # all files of a source have the same labels
        remarks: list[str] = []
        sets: dict[str, list[Record]] = {name: [] for name in self._paths}
        for name, table in tables.items():
            sets[name] = self._records(name, table, skipped[name], remarks, understood[name])
        numbered = "test" in tables and tables["test"].numbered
        if numbered or (counts_rows(sets["test"]) and counts_rows(sets["train"])):
            sets["test"], shared = with_other_ids(sets["test"], [*sets["train"], *sets["dev"]], "#test")
            if shared:
                remarks.append(
                    "The ids of the test set count its rows, as the training set's do: they end in #test"
                )
        if self._paths["dev"] is None and self._dev_fraction > 0:
            sets["train"], sets["dev"] = self._set_aside(sets["train"])
        else:
            sets["dev"], shared = with_other_ids(sets["dev"], sets["train"], "#dev")
            if shared:
                remarks.append(
                    f"Warning: {len(shared):,} ids of the dev set are in the training set too; there they end in #dev: "
                    f"{listed(shared[:5])}"
                )
        if not sets["train"]:
            raise InputError(
                f"--data.source.train: {self._paths['train']} leaves nothing to train on once the dev set is set "
                "aside: give more rows, --data.source.dev, or --data.source.dev_fraction 0"
            )
        unique_ids([record for records in sets.values() for record in records], "over train, dev and test")
        reject_shared_content({name: sets[name] for name in ("train", "dev")}, sets["test"], "test")
        self.remarks = (*remarks, *remarks_on(self.skipped), *set_warnings.warnings_on(sets))
        return Splits(**sets)

    def _list_of_skipped(self) -> list[BadRecord] | None:
        return [] if self._on_bad_record == "skip" else None

    def _table(self, name: str, path: str, skipped: list[BadRecord] | None) -> tuple[Table, str]:
        """The rows of a file by their columns, and a line on how the file was read."""
        option = f"--data.source.{name}"
        rows, understood = readers.read_table(path, option, skipped, self._reading)
        table = Table(
            rows,
            option,
            self._labels,
            self._fields,
            self._answer_index,
            default_labels=self._given_labels is None,
            optional=("answer",) if name == "test" else (),  # a question without an answer can be predicted
        )
        return table, understood

    def _records(
        self, name: str, table: Table, skipped: list[BadRecord] | None, remarks: list[str], understood: str
    ) -> list[Record]:
        path, option = str(self._paths[name]), f"--data.source.{name}"
        stem = self._stem(name)
        ids = OwnIds()

        def build(row: Row) -> Record:
            record = table.record(row, f"{stem}:{row.key or row.number}")
            if name != "test" and record.answer is None:
                if not table.has_answers:
                    raise InputError(
                        f"{option}: no column of {row.file or path} holds the answers; there are "
                        f"{listed(sorted(table.columns))}: name it with --data.source.fields.answer COLUMN"
                    )
                raise InputError(
                    f"{row.where}: {table.answer_column} is missing or empty: the {name} set needs answers: give one"
                )
            return ids.own(record)

        pairs = usable(table.rows, build, option, skipped)
        if skipped and not pairs:
            raise readers.all_bad(path, option, skipped)
        self.skipped += skipped or []
        records = [
            replace(record, aliases=(*_aliases(row), ids.first.get(record.id, record.id)))
            for row, record in pairs
        ]
        if name != "test" and self.checks_test_questions:
            reject_test_questions({name: records})
        self._first_ids.update(ids.first)
        remarks.append(", ".join([understood, *table.words()]))  # complete once the rows are read
        remarks += [f"{Path(path).name}: {line}" for line in table.remarks()]
        remarks += ids.remark(Path(path).name, "--data.source.fields.id COLUMN names another column")
        return records

    def _stem(self, name: str) -> str:
        """The beginning of generated ids; it differs between files of the same name in several folders."""
        stems = {
            key: Path(path).name.partition(".")[0] for key, path in self._paths.items() if path is not None
        }
        same = [key for key, stem in stems.items() if stem == stems[name]]
        return stems[name] if same == [name] else f"{stems[name]}-{name}"

    def _set_aside(self, records: list[Record]) -> tuple[list[Record], list[Record]]:
        """Train and dev, by the hashes of the ids; equal questions stay together, and dev is not empty.

        Questions about the same image stay together too.
        """

        def rank(record: Record) -> int:
            first = self._first_ids.get(record.id, record.id)
            first = record.images[0].sha256 if record.images else first
            return int.from_bytes(hashlib.sha256(first.encode()).digest()[:8], "big")

        chosen = {content(record) for record in records if rank(record) < self._dev_fraction * 2**64}
        if not chosen:
            first = min(map(rank, records), default=0)
            chosen = {content(record) for record in records if rank(record) == first}
        dev = [record for record in records if content(record) in chosen]
        return [record for record in records if content(record) not in chosen], dev


def _digests(fingerprint: Mapping[str, object]) -> set[str]:
    """The SHA-256 of the training file's parts."""
    files = fingerprint.get("files")
    parts = files.get(fingerprint.get("train")) if isinstance(files, dict) else None
    entries = list(parts.values()) if isinstance(parts, dict) else []
    return {str(entry["sha256"]) for entry in entries if isinstance(entry, dict) and "sha256" in entry}


def _labels(given: Sequence[Word] | Mapping[Word, Word] | None) -> Labels:
    """The labels as words, however YAML reads them.

    Raises:
        InputError: there is only one label, or two are equal.
    """
    if given is None:
        return Labels(YES_NO_MAYBE)
    meanings = {_word(key): _word(word) for key, word in given.items()} if isinstance(given, Mapping) else {}
    words = list(dict.fromkeys(meanings.values())) if isinstance(given, Mapping) else list(map(_word, given))
    if len(set(words)) < len(words) or len(words) == 1 or not all(map(str.strip, words)):
        raise InputError(
            f"--data.source.labels: {_plain(given)}: give two or more different ones, or [] for free answers"
        )
    return Labels(words, meanings, explicit=True)


def _word(value: Word) -> str:
    """YAML reads `yes` and `no` as true and false."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _plain(given: Sequence[Word] | Mapping[Word, Word] | None) -> object:
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {_word(key): _word(word) for key, word in given.items()}
    return list(map(_word, given))


def _aliases(row: Row) -> tuple[str, ...]:
    """Other ids of a row: its key, and the values of id columns, also of those in a nested object."""
    aliases = [] if row.key is None else [row.key]
    nested = [value for value in row.value.values() if isinstance(value, Mapping)]
    for columns in (row.value, *nested):
        for key, value in columns.items():
            name = column_key(str(key))
            if name in _ID_COLUMNS and isinstance(value, (str, int, float)):
                aliases.append(str(value))
            elif name in _ADDRESS_COLUMNS and isinstance(value, str) and _PUBMED.fullmatch(value.strip()):
                aliases.append(value)
    return tuple(aliases)
