"""Any medical question set of one's own, as JSONL, JSON, CSV or Parquet.

Source: the user's files. One row as JSONL with our names of the columns, as they are without `fields`:

    {"id": "ward-7", "question": "Is aspirin of use here?", "contexts": ["METHODS …", "RESULTS …"],
     "answer": "yes", "long_answer": "It halved the risk.", "topics": ["Cardiology"]}

multiple choice:

    {"question": "Which drug is a beta blocker?", "options": {"A": "Aspirin", "B": "Atenolol"}, "answer": "B"}

and a free answer, with `labels: []`: {"question": "What is a beta blocker?", "answer": "A drug that …"}.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medqlora.data import fields as values
from medqlora.data import files
from medqlora.data.bad_records import OnBadRecord, check_choice, remarks_on
from medqlora.data.checks import content, reject_shared_content, unique_ids, usable
from medqlora.data.files import Row
from medqlora.data.json_text import parse_json
from medqlora.data.source import Source
from medqlora.data.test_sets import reject_test_questions
from medqlora.data.wording import listed
from medqlora.errors import InputError
from medqlora.records import YES_NO_MAYBE, BadRecord, Record, Splits

OURS = ("id", "question", "contexts", "answer", "long_answer", "options", "topics")

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: whatever column is the id, these are looked at for leaks
_ID_COLUMNS = frozenset(
    [
        "pmid",
        "pubid",
        "pubmed_id",
        "pubmedid",
        "pubmed",
        "id",
        "key",
        "qid",
        "question_id",
        "doc_id",
        "document_id",
    ]
)


class JSONLines(Source):
    """A question set of one's own: a training file, and files for dev and test where there are some.

    Args:
        train: the training file: .jsonl, .json, .csv, .tsv, .parquet or .arrow (.gz after those of text).
        dev: the file that validation and the choice of the best checkpoint use. Without it a part of the
            training file is set aside.
        test: the test file.
        dev_fraction: without `dev`, which part of the training file is set aside: 0.1 for a tenth, 0 for
            none. It goes by each id's hash, so the same rows are taken whatever their order.
        fields: our name of a column → the file's, for id, question, contexts, answer, long_answer, options
            and topics. `options` may name several columns, with commas: {"options": "opa,opb,opc,opd"}.
        labels: the possible answers, in a fixed order. Without it yes, no, maybe, or for multiple choice the
            options' letters; an empty list means free answers.
        on_bad_record: what becomes of a record that can't be used: "error" ends with its file and line,
            "skip" leaves it out, counts it and lists it in the run's folder. A question of a test set among
            those to learn from is always an error, and so is a file without one good record.
    """

    name = "JSONLines"

    def __init__(
        self,
        train: str,
        dev: str | None = None,
        test: str | None = None,
        dev_fraction: float = 0.1,
        fields: dict[str, str] | None = None,
        labels: list[str] | None = None,
        on_bad_record: OnBadRecord = "error",
    ) -> None:
        check_choice(on_bad_record)
        if not 0 <= dev_fraction < 1:
            raise InputError(
                f"--data.source.dev_fraction: {dev_fraction} is no fraction: give 0 or more, below 1"
            )
        for key in fields or {}:
            if key not in OURS:
                raise InputError(
                    f"--data.source.fields: {key!r} is none of our columns: use {', '.join(OURS)}"
                )
        if labels is not None and (len(set(labels)) < len(labels) or len(labels) == 1 or not all(labels)):
            raise InputError(
                f"--data.source.labels: {labels}: give two or more different ones, or [] for free answers"
            )
        self._paths = {"train": train, "dev": dev, "test": test}
        self._dev_fraction = dev_fraction
        self._fields = dict(fields or {})
        self._labels = None if labels is None else tuple(labels)
        self._on_bad_record = on_bad_record
        self.skipped: list[BadRecord] = []

    def fingerprint(self) -> dict[str, object]:
        return {
            "source": self.name,
            **self._paths,
            "dev_fraction": self._dev_fraction,
            "fields": self._fields,
            "labels": None if self._labels is None else list(self._labels),
            "on_bad_record": self._on_bad_record,
            "files": {path: files.fingerprint(path) for path in self._paths.values() if path is not None},
        }

    def same_data(self, recorded: Mapping[str, object]) -> bool:
        """The same training file, by its path or by its bytes."""
        mine = self.fingerprint()
        same_file = recorded.get("train") == mine["train"]
        return super().same_data(recorded) and (same_file or bool(_digests(recorded) & _digests(mine)))

    def read(self) -> Splits:
        self.skipped, self.remarks = [], ()
        sets = {name: self._read(name) for name in self._paths}
        if self._paths["dev"] is None and self._dev_fraction > 0:
            sets["train"], sets["dev"] = _set_aside(sets["train"], self._dev_fraction)
        if not sets["train"]:
            raise InputError(
                f"--data.source.train: {self._paths['train']} leaves nothing to train on once the dev set is set "
                "aside: give more rows, --data.source.dev, or --data.source.dev_fraction 0"
            )
        unique_ids([record for records in sets.values() for record in records], "over train, dev and test")
        reject_shared_content({name: sets[name] for name in ("train", "dev")}, sets["test"], "test")
        if self._paths["dev"] is not None:
            reject_shared_content({"train": sets["train"]}, sets["dev"], "dev")
        self.remarks = remarks_on(self.skipped)
        return Splits(**sets)

    def _read(self, name: str) -> list[Record]:
        path = self._paths[name]
        if path is None:
            return []
        option = f"--data.source.{name}"
        skipped: list[BadRecord] | None = [] if self._on_bad_record == "skip" else None
        rows = files.read_rows(path, option, skipped)
        self._check_columns(rows, option)
        stem = Path(path).name.partition(".")[0]

        def build(row: Row) -> Record:
            record = self.record(row, f"{stem}:{row.key or row.number}")
            if name != "test" and record.answer is None:
                raise InputError(
                    f"{row.where}: {self._column('answer')} is missing or empty: the {name} set needs answers"
                )
            return record

        found = usable(rows, build, option, skipped)
        if skipped and not found:
            raise files.all_bad(path, option, skipped)
        self.skipped += skipped or []
        records = [replace(record, aliases=_aliases(row)) for row, record in found]
        if name != "test" and self.checks_test_questions:
            reject_test_questions({name: records})
        return records

    def _column(self, ours: str) -> str:
        return self._fields.get(ours, ours)

    def _check_columns(self, rows: list[Row], option: str) -> None:
        """A mapped column that no row has is a slip of the pen; so is a file without questions."""
        there = {key for row in rows for key in row.value}
        for ours, theirs in {"question": self._column("question"), **self._fields}.items():
            if ours == "answer" and option.endswith("test"):
                continue  # questions without answers can be asked
            for column in _columns(theirs) if ours == "options" else [theirs]:
                if column not in there:
                    raise InputError(
                        f"{option}: no row of {rows[0].file} has the column {column!r}; there are "
                        f"{listed(sorted(there))}: map ours with --data.source.fields.{ours} COLUMN"
                    )

    def record(self, row: Row, default_id: str) -> Record:
        """A row as a record.

        Raises:
            InputError: something in it is not as it should be.
        """
        value = row.value

        def get(ours: str) -> Any:
            return value.get(self._column(ours))

        def texts(ours: str) -> tuple[str, ...]:
            return values.texts(row, self._column(ours), _cell(row, get(ours)))

        options = self._options(row)
        labels = self._labels_of(row, options)
        long_answer = values.text(row, self._column("long_answer"), get("long_answer"))
        given = get("id")
        if values.is_missing(given) and "id" in self._fields:
            raise InputError(f"{row.where}: {self._column('id')} is missing or empty: every row needs an id")
        key, identity = ("key", default_id) if values.is_missing(given) else (self._column("id"), given)
        return Record(
            id=values.identity(row, key, identity),
            question=values.text(row, self._column("question"), get("question"), needed=True),
            contexts=texts("contexts"),
            options=options,
            labels=labels,
            answer=self._answer(row, get("answer"), options, labels),
            long_answer=long_answer,
            topics=texts("topics"),
            where=row.where,
        )

    def _options(self, row: Row) -> dict[str, str]:
        """label → text, from an object, a list, several columns, or the columns A, B, …"""
        theirs, value = self._column("options"), row.value
        columns = _columns(theirs)
        if len(columns) > 1:
            given: Any = [value.get(column) for column in columns]
            while given and values.is_missing(given[-1]):
                given.pop()  # some questions have fewer
        elif "options" not in self._fields and theirs not in value:
            given = {}
            for letter in _LETTERS:
                if values.is_missing(value.get(letter)):
                    break
                given[letter] = value[letter]
            given = given if len(given) > 1 else None
        else:
            given = _cell(row, value.get(theirs))
        if values.is_missing(given) or given in ({}, []):
            return {}
        if isinstance(given, list):
            if len(given) > len(_LETTERS):
                raise values.bad(row, theirs, given, f"give {len(_LETTERS)} options at most")
            given = dict(zip(_LETTERS, given, strict=False))
        if not isinstance(given, dict):
            raise values.bad(row, theirs, given, "give an object of letters and texts, or a list of texts")
        # a column of structs in Parquet has every letter in every row, null where the question has fewer
        given = {label: text for label, text in given.items() if text is not None}
        if len(given) < 2:
            raise values.bad(row, theirs, given, "give two options or more")
        return {
            values.name(row, f"{theirs}: letter", label): values.text(
                row, f"{theirs} {label}", text, needed=True
            )
            for label, text in given.items()
        }

    def _labels_of(self, row: Row, options: Mapping[str, str]) -> tuple[str, ...]:
        if not options:
            return YES_NO_MAYBE if self._labels is None else self._labels
        if self._labels and self._labels != tuple(options):
            raise InputError(
                f"{row.where}: its options are {listed(options)}, and --data.source.labels has "
                f"{', '.join(self._labels)}: leave --data.source.labels out for multiple choice"
            )
        return () if self._labels == () else tuple(options)

    def _answer(
        self, row: Row, value: Any, options: Mapping[str, str], labels: tuple[str, ...]
    ) -> str | None:
        column = self._column("answer")
        if values.is_missing(value):
            return None
        if not labels:
            return values.text(row, column, value)
        if options and value not in labels:
            named = [label for label, text in options.items() if text == value]
            if len(named) == 1:  # the option's text stands for its letter
                return named[0]
        fix = "correct it" if options else "correct it, or name the possible answers in --data.source.labels"
        return values.one_of(row, column, value, labels, fix)


def _digests(fingerprint: Mapping[str, object]) -> set[str]:
    """The SHA-256 of the training file's parts."""
    held = fingerprint.get("files")
    parts = held.get(fingerprint.get("train")) if isinstance(held, dict) else None
    found = list(parts.values()) if isinstance(parts, dict) else []
    return {str(one["sha256"]) for one in found if isinstance(one, dict) and "sha256" in one}


def _columns(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def _cell(row: Row, value: Any) -> Any:
    """A cell of a CSV holds lists and objects as JSON; any other text, "[12] patients" too, is itself."""
    if isinstance(value, str) and re.match(r"\s*[\[{]", value):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def _aliases(row: Row) -> tuple[str, ...]:
    """What a row may be known by elsewhere: its key, and columns with an id's name, also those of an object in it."""
    found = [] if row.key is None else [row.key]
    nested = [value for value in row.value.values() if isinstance(value, Mapping)]
    for columns in (row.value, *nested):
        for key, value in columns.items():
            if str(key).strip().lower() in _ID_COLUMNS and isinstance(value, (str, int, float)):
                found.append(str(value))
    return tuple(found)


def _set_aside(records: list[Record], fraction: float) -> tuple[list[Record], list[Record]]:
    """Train and dev, by the ids' hashes; equal questions stay together, and dev is not empty."""

    def rank(record: Record) -> int:
        return int.from_bytes(hashlib.sha256(record.id.encode()).digest()[:8], "big")

    chosen = {content(record) for record in records if rank(record) < fraction * 2**64}
    if not chosen:
        chosen = {content(min(records, key=rank))}
    dev = [record for record in records if content(record) in chosen]
    return [record for record in records if content(record) not in chosen], dev
