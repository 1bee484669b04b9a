"""PubMedQA: yes/no/maybe questions about abstracts of PubMed, each answered by the abstract's findings.

Source: Jin et al. 2019, https://aclanthology.org/D19-1259, https://github.com/pubmedqa/pubmedqa (MIT licence),
and with other column names https://huggingface.co/datasets/qiaojin/PubMedQA. One of the 1,000 rows of
GitHub's `ori_pqal.json`, shortened at the dots:

    "21214884": {
        "QUESTION": "Can 'high-risk' human papillomaviruses (HPVs) be detected in human breast milk?",
        "CONTEXTS": ["Using polymerase chain reaction techniques, we evaluated …", "Of the 32 studied …"],
        "LABELS": ["METHODS", "RESULTS"],
        "MESHES": ["Adult", "Alphapapillomavirus", …],
        "YEAR": "2011",
        "reasoning_required_pred": "no",
        "reasoning_free_pred": "no",
        "final_decision": "no",
        "LONG_ANSWER": "This preliminary case-control study indicates the absence of mucosal 'high-risk' HPV …"
    }

and the Hub's: {"pubid": 21214884, "question": …, "context": {"contexts": […], "labels": […], "meshes": […],
"reasoning_required_pred": ["n", "o"], "reasoning_free_pred": ["n", "o"]}, "long_answer": …, "final_decision": "no"}.

`pubmedqa_split.json` beside this file holds the official split as PMIDs: `test` (500) and `folds` (10 × 50,
the dev sets; the other nine folds are the training set), from the authors' `preprocess/split_dataset.py`.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

from medqlora.data import readers
from medqlora.data.bad_records import OnBadRecord, check_choice, remarks_on
from medqlora.data.checks import at, reject_shared_content, usable
from medqlora.data.readers import Row
from medqlora.data.sources.benchmark import HUB_WORD
from medqlora.data.sources.hub import read_hub
from medqlora.data.sources.pubmedqa_files import fingerprint, labeled_files
from medqlora.data.sources.pubmedqa_rows import record_of
from medqlora.data.sources.source import SOURCES, Source
from medqlora.data.test_sets import by_id, find_leaks, reject_test_questions
from medqlora.errors import InputError
from medqlora.records import BadRecord, Record, Splits

HUB = "qiaojin/PubMedQA"
DOWNLOAD = "https://raw.githubusercontent.com/pubmedqa/pubmedqa/master/data/ori_pqal.json"


@cache
def _split() -> dict[str, list]:
    return json.loads(Path(__file__).with_name("pubmedqa_split.json").read_text("ascii"))


def official_test_ids() -> tuple[str, ...]:
    """The PMIDs of the official 500 test questions."""
    return tuple(_split()["test"])


def official_folds() -> tuple[tuple[str, ...], ...]:
    """The PMIDs of the ten dev sets of 50; the training set of a fold is the other nine."""
    return tuple(map(tuple, _split()["folds"]))


def reject_test_pmids(records: Iterable[Record], name: str, *, option: bool = True) -> None:
    """Rejects PubMedQA's official test questions in a training or validation set.

    Ids are compared as PMIDs: 12377809, "PMID: 12377809", "012377809" and the address of its PubMed page are equal.

    Args:
        records: the set.
        name: its name, for the message.
        option: whether the message names the option that allows it.

    Raises:
        InputError: a record is a test question.
    """
    reject_test_questions({name: [record for record in records if by_id(record) is not None]}, option=option)


@SOURCES.register("PubMedQA")
class PubMedQA(Source):
    """PubMedQA with its official test set of 500 questions and one of the ten official folds of 450/50.

    Args:
        path: a local copy: `ori_pqal.json` of GitHub, or the Hub's table as .parquet, .arrow, .jsonl, .json
            or .csv, or a folder with one of these; or files of the authors' split: `test_set.json`, enough for
            `test` and `predict`, a folder `pqal_fold0` to `pqal_fold9`, enough for `fit` and `validate`, or the
            folder that holds both. Without it the Hub's `qiaojin/PubMedQA` is read.
        fold: the official fold, 0 to 9, whose 50 questions are the dev set. A folder `pqal_foldN` decides it itself.
        artificial: extra training data, `pqa_artificial`: a file in either shape, or "hub".
        artificial_samples: the number of artificial questions; the sample does not depend on the order of the file.
            All when null.
        unlabeled: extra training data, `pqa_unlabeled`: a file in either shape, or "hub". These have no decision, so
            their conclusion is learned as a free answer.
        unlabeled_samples: the number of unlabeled questions, as `artificial_samples`.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: accept a local copy with fewer than 1,000 questions. Its scores are not comparable with those of
            the official test set.
        on_bad_record: the handling of an unusable record: "error" stops with its file and line, "skip" leaves it out,
            counts it and lists it in the run's folder. Where fewer than 1,000 questions remain, allow_partial is
            needed as well.
    """

    name = "PubMedQA"
    hub = HUB
    topic_kind = "MeSH heading"

    def __init__(
        self,
        path: str | None = None,
        fold: int = 0,
        artificial: str | None = None,
        artificial_samples: int | None = None,
        unlabeled: str | None = None,
        unlabeled_samples: int | None = None,
        revision: str | None = None,
        allow_partial: bool = False,
        on_bad_record: OnBadRecord = "error",
    ) -> None:
        check_choice(on_bad_record)
        if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold <= 9:
            raise InputError(f"--data.source.fold: {fold!r} is no official fold: give 0 to 9")
        #: kind, file or "hub", number of records
        self._extras = (
            ("artificial", artificial, artificial_samples),
            ("unlabeled", unlabeled, unlabeled_samples),
        )
        for kind, origin, count in self._extras:
            if count is not None and (count < 1 or origin is None):
                option = f"--data.source.{kind}"
                raise InputError(f"{option}_samples: {count}: give 1 or more, and {option}")
        self._values: dict[str, object] = {
            "path": path,
            "fold": fold,
            "artificial": artificial,
            "artificial_samples": artificial_samples,
            "unlabeled": unlabeled,
            "unlabeled_samples": unlabeled_samples,
            "revision": revision,
            "allow_partial": allow_partial,
            "on_bad_record": on_bad_record,
        }
        self._skips = on_bad_record == "skip"
        self.skipped: list[BadRecord] = []
        self._path, self._fold, self._revision, self._allow_partial = path, fold, revision, allow_partial
        #: the official fold of the files; before `read`, the option's value
        self._held_fold = fold

    def fingerprint(self) -> dict[str, object]:
        extras = [path for _, path, _ in self._extras if path not in (None, HUB_WORD)]
        digests = {str(path): readers.fingerprint(str(path)) for path in extras}
        if self._path is not None:
            digests = {self._path: fingerprint(self._path, self._fold), **digests}
        return {"source": self.name, **self._values, "fold": self._held_fold, "files": digests}

    def read(self) -> Splits:
        return self.read_for(Splits._fields)

    def read_for(self, needed: Collection[str], also: Collection[str] = ()) -> Splits:
        """The named splits, and other splits of the same files; those of `needed` have to be complete.

        Raises:
            InputError: as `read`; or a file of the authors' split holds questions of another split.
        """
        option = "--data.source.path"
        self.skipped, self.remarks = [], ()
        by_pmid = self._labeled((*needed, *also), option)
        folds, test_ids = official_folds(), official_test_ids()
        origin = self._path or HUB
        train_ids = [pmid for number, fold in enumerate(folds) if number != self._held_fold for pmid in fold]
        ids = dict(zip(Splits._fields, (train_ids, folds[self._held_fold], test_ids), strict=True))
        empty = [part for part in needed if by_pmid.keys().isdisjoint(ids[part])]
        if empty:
            raise InputError(
                f"{option}: {origin} holds none of the {_and(empty)} set's questions{_holds(by_pmid, ids)}: get "
                f"{DOWNLOAD}, or give files of the authors' split: test_set.json for `test`, a folder pqal_foldN for "
                "`fit`, or the folder that holds both"
            )
        wanted = [pmid for part in needed for pmid in ids[part]]
        missing = [pmid for pmid in sorted(wanted) if pmid not in by_pmid]
        if missing and not self._allow_partial:
            raise InputError(
                f"{option}: {origin} lacks {len(missing)} of the {len(wanted):,} official questions"
                f"{'' if len(wanted) == 1000 else f' of the {_and(needed)} set'} (PMID {missing[0]}, …; "
                f"{sum(pmid in missing for pmid in test_ids)} of them in the test set{self._left_out()}): get the "
                f"whole file at {DOWNLOAD}, or pass --data.source.allow_partial true"
            )
        splits = Splits(*([by_pmid[pmid] for pmid in part if pmid in by_pmid] for part in ids.values()))
        left_out: list[str] = []
        for kind, path, count in self._extras if "train" in needed else ():
            if path is not None:
                splits.train.extend(self._extra(kind, path, count, splits, left_out))
        of_fold = () if self._held_fold == self._fold else (f"{origin} holds fold {self._held_fold}",)
        self.remarks = (*self.remarks, *of_fold, *left_out, *remarks_on(self.skipped))
        return splits

    def _labeled(self, parts: Collection[str], option: str) -> dict[str, Record]:
        """PMID → record, of the files that hold `parts`; sets the fold.

        Raises:
            InputError: a file can't be read, holds a question of no or another split, or none of `parts`.
        """
        files = None if self._path is None else labeled_files(self._path, self._fold, option)
        folds = official_folds()
        if files is None or files.whole is not None:
            path = None if files is None else files.whole
            by_pmid = {record.id: record for record in self._records(path, "labeled", option)}
            self._held_fold = self._fold_of(set(by_pmid), option, lacks_its_dev_set=False)
            _reject_strangers(by_pmid, {*official_test_ids(), *(pmid for fold in folds for pmid in fold)})
            return by_pmid
        sets = {
            name: self._records(str(file), "labeled", option)
            for name, file in files.parts.items()
            if name in parts
        }
        pmids = {record.id for record in sets.get("dev") or sets.get("train") or ()}
        self._held_fold = self._fold_of(pmids, option, lacks_its_dev_set=not sets.get("dev"))
        official = {
            "train": {
                pmid for number, fold in enumerate(folds) if number != self._held_fold for pmid in fold
            },
            "dev": set(folds[self._held_fold]),
            "test": set(official_test_ids()),
        }
        by_pmid = {}
        for name, records in sets.items():
            of_part = {record.id: record for record in records}
            _reject_strangers(of_part, official[name], f"{name} set", self._held_fold)
            by_pmid.update(of_part)
        return by_pmid

    def _fold_of(self, pmids: set[str], option: str, *, lacks_its_dev_set: bool) -> int:
        """The fold that the questions belong to; the option's value where they don't decide it.

        Args:
            pmids: a dev set, or a training set.
            option: the option that named the files, for messages.
            lacks_its_dev_set: whether they are a training set, which has no question of its fold's dev set.

        Raises:
            InputError: the option `fold` names another fold.
        """
        present = [not set(fold).isdisjoint(pmids) for fold in official_folds()]
        folds = [number for number, is_present in enumerate(present) if is_present != lacks_its_dev_set]
        if len(folds) != 1 or folds[0] == self._fold:
            return self._fold
        if self._fold != 0:
            raise InputError(
                f"--data.source.fold: {self._fold}, and {self._path} holds the official fold {folds[0]}: leave the "
                f"option out, or change {option}"
            )
        return folds[0]

    def _left_out(self) -> str:
        if not self.skipped:
            return ""
        first = self.skipped[0]
        return f"; left out as bad: {len(self.skipped):,}, the first {first.file}:{first.line}: {first.why}"

    def _records(self, path: str | None, kind: str, option: str) -> list[Record]:
        """The records of a local file, or of the Hub without one; `on_bad_record` decides about unusable ones."""
        skipped: list[BadRecord] | None = [] if self._skips else None
        if path is None:
            rows = _hub(kind, self._revision)
        else:
            rows, understood = readers.read_table(path, option, skipped)
            self.remarks = (*self.remarks, understood)
        pairs = usable(rows, lambda row: record_of(row, kind), option, skipped)
        if skipped and not pairs:
            raise readers.all_bad(path or HUB, option, skipped)
        self.skipped += skipped or []
        return [record for _, record in pairs]

    def _extra(
        self, kind: str, path: str, count: int | None, splits: Splits, left_out: list[str]
    ) -> list[Record]:
        option = f"--data.source.{kind}"
        records = self._records(None if path == HUB_WORD else path, kind, option)
        reject_test_pmids(records, kind, option=False)
        taken = {record.id: record for part in splits for record in part}
        for record in records:
            if record.id in taken:
                raise InputError(
                    f"{at(record)}: the PMID {record.id} is already at {at(taken[record.id])}: remove it ({option})"
                )
        reject_shared_content({kind: records}, splits.test, "test")
        reject_shared_content({kind: records}, splits.dev, "dev")
        # titles recur in PubMed: the question of another paper may have the same words
        same = {leak.record.id for leak in find_leaks(records)}
        if same:
            left_out.append(
                f"{len(same):,} of {len(records):,} {kind} questions have a test question's words, and are left out"
            )
            records = [record for record in records if record.id not in same]
        if count is not None and count < len(records):
            # the hash of the id makes the sample independent of the file's order
            records.sort(key=lambda record: hashlib.sha256(record.id.encode()).digest())
            records = records[:count]
        return records


def _reject_strangers(
    by_pmid: Mapping[str, Record], official: Collection[str], part: str = "", fold: int = 0
) -> None:
    stranger = next((record for pmid, record in by_pmid.items() if pmid not in official), None)
    if stranger is None:
        return
    if part:
        of_fold = "" if part == "test set" else f" of fold {fold}"
        raise InputError(
            f"{at(stranger)}: the PMID {stranger.id} is not in PubMedQA's official {part}{of_fold}: write the files "
            "with the authors' split_dataset.py, or give ori_pqal.json as --data.source.path"
        )
    raise InputError(
        f"{at(stranger)}: the PMID {stranger.id} is not among PubMedQA's 1,000 labelled questions: give "
        "pqa_artificial or pqa_unlabeled as --data.source.artificial or --data.source.unlabeled, and "
        "other data with class_path medqlora.data.JSONLines"
    )


def _and(parts: Collection[str]) -> str:
    return " and ".join(parts)


def _holds(by_pmid: Mapping[str, Record], ids: Mapping[str, Collection[str]]) -> str:
    """The number of questions of each split, for the message."""
    counts = {part: sum(pmid in by_pmid for pmid in pmids) for part, pmids in ids.items()}
    return f" ({', '.join(f'{count} of the {part} set' for part, count in counts.items())})"


def _hub(kind: str, revision: str | None) -> list[Row]:
    if kind == "labeled":
        file = DOWNLOAD.rsplit("/", 1)[1]
        option, fix = "--data.source.path", f"download {DOWNLOAD} and pass --data.source.path {file}"
    else:
        option = f"--data.source.{kind}"
        fix = f"pass a local copy: {option} FILE"
    return read_hub(HUB, f"pqa_{kind}", "train", revision, option, fix)
