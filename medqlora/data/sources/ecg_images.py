"""Electrocardiograms in WFDB format, drawn as 12-lead paper images: PTB-XL, or a data set laid out as it is.

Source: Wagner et al. 2020, https://doi.org/10.1038/s41597-020-0495-6, https://physionet.org/content/ptb-xl/ (CC BY
4.0). A row of its `ptbxl_database.csv`, shortened; the record is a header and a signal file:

    ecg_id,patient_id,scp_codes,strat_fold,filename_lr,filename_hr
    1,15709.0,"{'NORM': 100.0, 'LVOW': 0.0, 'SR': 0.0}",3,records100/00000/00001_lr,records500/00000/00001_hr

The authors recommend folds 1 to 8 for training, 9 for validation and 10 for the test; no patient is in two of them.
"""

import ast
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medqlora.data import fields, readers
from medqlora.data.images import image_file
from medqlora.data.images.ecg import LEADS, draw_ecg
from medqlora.data.readers import Row
from medqlora.data.sources.source import SOURCES, Source
from medqlora.errors import InputError
from medqlora.records import ImageFile, Record, Splits
from medqlora.utils.cache import cache_folder
from medqlora.utils.files import replacing
from medqlora.utils.progress import phase

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: increase it when the drawing changes
VERSION = 1
LABELS = ("yes", "no")
_TABLE = "ptbxl_database.csv"
_TEST_FOLD, _DEV_FOLD = 10, 9
#: mV of a unit; PhysioNet's headers have mV, and a few data sets µV
_MILLIVOLTS = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "v": 1e3}


@SOURCES.register("ECGImages")
class ECGImages(Source):
    """Yes/no questions about 12-lead electrocardiograms, which are drawn from WFDB records as on paper.

    Needs the extra `ecg`: pip install 'medqlora[ecg]'. Pictures are kept in the cache folder.

    Args:
        path: PTB-XL's folder, with `ptbxl_database.csv` and the records; or another in that layout.
        code: the SCP-ECG statement that is asked for: the answer is yes where a record has it.
        question: the question, in words that suit `code`.
        sampling: 500 for `filename_hr`, 100 for `filename_lr`, in Hz.
        limit: read only the first records of each fold's set; all when null.
    """

    name = "ECGImages"
    topic_kind = "statement"

    def __init__(
        self,
        path: str,
        code: str = "NORM",
        question: str = "Is this electrocardiogram normal?",
        sampling: Literal[100, 500] = 500,
        limit: int | None = None,
    ) -> None:
        if sampling not in (100, 500):
            raise InputError(
                f"--data.source.sampling {sampling}: PTB-XL has 100 and 500 Hz: give one of them"
            )
        if limit is not None and limit < 1:
            raise InputError(f"--data.source.limit is {limit}: it has to be at least 1")
        if not code.strip() or not question.strip():
            raise InputError("--data.source.code and --data.source.question: neither may be empty")
        self._path, self._code, self._question = path, code.strip(), question
        self._sampling, self._limit = sampling, limit

    def fingerprint(self) -> dict[str, object]:
        values = {"path": self._path, "code": self._code, "question": self._question}
        values |= {"sampling": str(self._sampling), "limit": str(self._limit)}
        table = str(self._folder / _TABLE)
        return {"source": self.name, **values, "files": {table: readers.fingerprint(table)}}

    @property
    def _folder(self) -> Path:
        return Path(self._path).expanduser()

    def read(self) -> Splits:
        table = self._folder / _TABLE
        if not table.is_file():
            raise InputError(f"--data.source.path: {self._folder} holds no {_TABLE}: name PTB-XL's folder")
        rows = readers.read_rows(str(table), "--data.source.path")
        folds: dict[str, list[Row]] = {"train": [], "dev": [], "test": []}
        for row in rows:
            fold = fields.whole(_number(row, "strat_fold"))
            if fold is None or not 1 <= fold <= _TEST_FOLD:
                raise fields.bad(row, "strat_fold", row.value.get("strat_fold"), "give a fold from 1 to 10")
            part = "test" if fold == _TEST_FOLD else "dev" if fold == _DEV_FOLD else "train"
            folds[part].append(row)
        wanted = {part: found[: self._limit] for part, found in folds.items()}
        with phase("Drawing electrocardiograms", sum(map(len, wanted.values())), "records") as bar:
            sets: dict[str, list[Record]] = {}
            for part, found in wanted.items():
                sets[part] = []
                for row in found:
                    sets[part].append(self._record(row))
                    bar.advance()
        return Splits(**sets)

    def _record(self, row: Row) -> Record:
        codes = _codes(row)
        column = "filename_hr" if self._sampling == 500 else "filename_lr"
        name = fields.text(row, column, row.value.get(column), needed=True)
        return Record(
            id=f"ecg-{fields.identity(row, 'ecg_id', row.value.get('ecg_id'))}",
            question=self._question,
            labels=LABELS,
            answer="yes" if self._code in codes else "no",
            topics=tuple(codes),
            where=row.where,
            images=(ecg_image(self._folder / name, f"{row.where}: {column}"),),
        )


def _number(row: Row, key: str) -> object:
    value = row.value.get(key)
    try:
        return int(float(value)) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        return None


def _codes(row: Row) -> Mapping[str, object]:
    """The SCP-ECG statements of a row, which the file writes as a Python dictionary."""
    text = fields.text(row, "scp_codes", row.value.get("scp_codes"), needed=True)
    try:
        codes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        codes = None
    if not isinstance(codes, dict):
        raise fields.bad(row, "scp_codes", text, "give statements as in {'NORM': 100.0}")
    return {str(code): value for code, value in codes.items()}


def ecg_image(record: Path, where: str) -> ImageFile:
    """The picture of a WFDB record, drawn once and kept in the cache folder.

    Args:
        record: the record's path without an extension.
        where: what named it, for messages.

    Raises:
        InputError: a file is missing or damaged, or a lead is missing.
    """
    digest = hashlib.sha256(f"{VERSION}".encode())
    for suffix in (".hea", ".dat"):
        file = record.with_name(record.name + suffix)
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            raise InputError(f"{where}: {file} can't be read ({error.strerror or error})") from error
    path = cache_folder("ecg") / f"{digest.hexdigest()}.png"
    if not path.is_file():
        leads, sampling_hz = _signals(record, where)
        with replacing(path, durable=False) as stream:
            draw_ecg(leads, sampling_hz).save(stream, "PNG")
    return image_file(path, where)


def _signals(record: Path, where: str) -> "tuple[dict[str, NDArray[np.float64]], float]":
    try:
        import wfdb
    except ImportError as error:
        raise InputError(f"{where}: WFDB records need wfdb: pip install 'medqlora[ecg]'") from error
    try:
        read = wfdb.rdrecord(str(record))
    except Exception as error:  # wfdb raises many kinds for a damaged file
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{where}: {record}: not a WFDB record that can be read ({reason})") from error
    names = {str(name).strip().upper(): index for index, name in enumerate(read.sig_name)}
    missing = [lead for lead in LEADS if lead.upper() not in names]
    if missing:
        raise InputError(f"{where}: {record} lacks the leads {', '.join(missing)}: give 12-lead records")
    leads = {}
    for lead in LEADS:
        index = names[lead.upper()]
        factor = _MILLIVOLTS.get(str(read.units[index]).strip().lower())
        if factor is None:
            raise InputError(f"{where}: {record}: {lead} is in {read.units[index]!r}: give mV or uV")
        leads[lead] = read.p_signal[:, index] * factor
    return leads, float(read.fs)
