"""PubMedQA: is a yes/no/maybe question about an abstract answered by what the abstract found?

Source: Jin et al. 2019, https://aclanthology.org/D19-1259, https://github.com/pubmedqa/pubmedqa (MIT licence),
and with other names of the columns https://huggingface.co/datasets/qiaojin/PubMedQA. One of the 1,000 rows of
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
the dev sets; the other nine are the training set). It follows the authors' `preprocess/split_dataset.py`.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from medqlora.data import fields, readers
from medqlora.data.bad_records import OnBadRecord, check_choice, remarks_on
from medqlora.data.checks import at, reject_shared_content, usable
from medqlora.data.hub import read_hub
from medqlora.data.readers import Row
from medqlora.data.source import Source
from medqlora.data.wording import listed
from medqlora.errors import InputError
from medqlora.records import YES_NO_MAYBE, BadRecord, Record, Splits

HUB = "qiaojin/PubMedQA"
DOWNLOAD = "https://raw.githubusercontent.com/pubmedqa/pubmedqa/master/data/ori_pqal.json"

# no two repetitions beside each other take the same character: a long id takes linear time
_PMID = re.compile(r"(?:.*/)?(?:pmid|pubmed)?[\s:_#-]*0*([1-9]\d*)(?:\.0)?/?", re.IGNORECASE)
_PREDS = ("reasoning_required", "reasoning_free")


@cache
def _split() -> dict[str, list]:
    return json.loads(Path(__file__).with_name("pubmedqa_split.json").read_text("ascii"))


def official_test_ids() -> tuple[str, ...]:
    """The PMIDs of the official 500 test questions."""
    return tuple(_split()["test"])


def official_folds() -> tuple[tuple[str, ...], ...]:
    """The PMIDs of the ten dev sets of 50; the training set of a fold is the other nine."""
    return tuple(map(tuple, _split()["folds"]))


def reject_test_pmids(records: Iterable[Record], name: str) -> None:
    """Nothing that training sees may be one of PubMedQA's official test questions.

    Ids are compared as PMIDs: 12377809, "PMID: 12377809", "012377809" and the address of its PubMed page
    are the same.

    Args:
        records: what training, or the choice of a checkpoint, sees.
        name: what the set is called, for the message.

    Raises:
        InputError: one of them is.
    """
    test = frozenset(official_test_ids())
    for record in records:
        match = _PMID.fullmatch(record.id.strip())
        if match and match[1] in test:
            raise InputError(
                f"{at(record)}: the {name} set holds the PMID {match[1]}, which is in PubMedQA's official test "
                "set: remove it, or the test score means nothing"
            )


class PubMedQA(Source):
    """PubMedQA with its official test set of 500 questions and one of the ten official folds of 450/50.

    Args:
        path: a local copy: `ori_pqal.json` of GitHub, or the Hub's table as .parquet, .arrow, .jsonl or
            .json, or a folder with one of these. Without it the Hub's `qiaojin/PubMedQA` is read.
        fold: the official fold, 0 to 9, whose 50 questions are the dev set.
        artificial: extra training data, `pqa_artificial`: a file in either shape, or "hub".
        artificial_samples: how many of them; the same ones whatever the order of the file. All when null.
        unlabeled: extra training data, `pqa_unlabeled`: a file in either shape, or "hub". These have no
            decision, so their conclusion is learned as a free answer.
        unlabeled_samples: how many of them; as `artificial_samples`.
        revision: the Hub's commit, branch or tag to read; the newest when null.
        allow_partial: take a local copy that lacks some of the 1,000 questions. Scores are then not
            comparable with those of the official test set.
        on_bad_record: what becomes of a record that can't be used: "error" ends with its file and line,
            "skip" leaves it out, counts it and lists it in the run's folder. Where that leaves fewer than
            the 1,000 questions, allow_partial is needed as well.
    """

    name = "PubMedQA"

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
        for option, count, of in (
            ("artificial_samples", artificial_samples, artificial),
            ("unlabeled_samples", unlabeled_samples, unlabeled),
        ):
            if count is not None and (count < 1 or of is None):
                data = option.partition("_")[0]
                raise InputError(f"--data.source.{option}: {count}: give 1 or more, and --data.source.{data}")
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
        self._extras = (
            ("artificial", "pqa_artificial", artificial, artificial_samples),
            ("unlabeled", "pqa_unlabeled", unlabeled, unlabeled_samples),
        )

    def fingerprint(self) -> dict[str, object]:
        local = [
            path for path in (self._path, *(extra[2] for extra in self._extras)) if path not in (None, "hub")
        ]
        return {
            "source": self.name,
            **self._values,
            "files": {str(path): readers.fingerprint(str(path)) for path in local},
        }

    def read(self) -> Splits:
        option = "--data.source.path"
        self.skipped, self.remarks = [], ()
        held = {record.id: record for record in self._records(self._path, "pqa_labeled", "labeled", option)}
        folds, test_ids = official_folds(), official_test_ids()
        place = self._path or HUB
        official = {*test_ids, *(pmid for fold in folds for pmid in fold)}
        stranger = next((record for pmid, record in held.items() if pmid not in official), None)
        if stranger is not None:
            raise InputError(
                f"{at(stranger)}: the PMID {stranger.id} is not among PubMedQA's 1,000 labelled questions: give "
                "pqa_artificial or pqa_unlabeled as --data.source.artificial or --data.source.unlabeled, and "
                "other data with class_path medqlora.data.JSONLines"
            )
        missing = [pmid for pmid in sorted(official) if pmid not in held]
        if missing and not self._allow_partial:
            raise InputError(
                f"{option}: {place} lacks {len(missing)} of the 1,000 official questions (PMID {missing[0]}, …; "
                f"{sum(pmid in missing for pmid in test_ids)} of them in the test set{self._left_out()}): get the "
                f"whole file at {DOWNLOAD}, or pass --data.source.allow_partial true"
            )
        train_ids = [pmid for number, fold in enumerate(folds) if number != self._fold for pmid in fold]
        ids = (train_ids, folds[self._fold], test_ids)
        splits = Splits(*([held[pmid] for pmid in part if pmid in held] for part in ids))
        for part, records in zip(Splits._fields, splits, strict=True):
            if not records:
                raise InputError(
                    f"{option}: {place} holds none of the {part} set's questions: get {DOWNLOAD}"
                )
        for extra, config, path, count in self._extras:
            if path is not None:
                splits.train.extend(self._extra(extra, config, path, count, splits))
        self.remarks = (*self.remarks, *remarks_on(self.skipped))
        return splits

    def _left_out(self) -> str:
        if not self.skipped:
            return ""
        first = self.skipped[0]
        return f"; left out as bad: {len(self.skipped):,}, the first {first.file}:{first.line}: {first.why}"

    def _records(self, path: str | None, config: str, kind: str, option: str) -> list[Record]:
        """The records of a local file, or of the Hub without one; bad ones as `on_bad_record` says."""
        skipped: list[BadRecord] | None = [] if self._skips else None
        if path is None:
            rows = _hub(config, self._revision)
        else:
            rows, understood = readers.read_table(path, option, skipped)
            self.remarks = (*self.remarks, understood)
        found = usable(rows, lambda row: _record(row, kind), option, skipped)
        if skipped and not found:
            raise readers.all_bad(path or HUB, option, skipped)
        self.skipped += skipped or []
        return [record for _, record in found]

    def _extra(self, name: str, config: str, path: str, count: int | None, splits: Splits) -> list[Record]:
        option = f"--data.source.{name}"
        records = self._records(None if path == "hub" else path, config, name, option)
        reject_test_pmids(records, name)
        taken = {record.id: record for part in splits for record in part}
        for record in records:
            if record.id in taken:
                raise InputError(
                    f"{at(record)}: the PMID {record.id} is already at {at(taken[record.id])}: remove it ({option})"
                )
        reject_shared_content({name: records}, splits.test, "test")
        reject_shared_content({name: records}, splits.dev, "dev")
        if count is not None and count < len(records):
            # by the hash of the id: a sample that no order of the file decides
            records.sort(key=lambda record: hashlib.sha256(record.id.encode()).digest())
            records = records[:count]
        return records


def _record(row: Row, kind: str = "labeled") -> Record:
    """A row of either shape; `kind` is that of the set: labeled, artificial or unlabeled."""
    value = row.value
    if "QUESTION" in value or (row.key is not None and "question" not in value):
        if row.key is None:
            raise InputError(
                f"{row.where}: a row in GitHub's shape without its PMID: give an object keyed by PMID"
            )
        return _build(
            row, kind, "PMID", row.key, value, ("QUESTION", "CONTEXTS", "LABELS", "MESHES", "LONG_ANSWER")
        )
    if "pubid" not in value:
        raise InputError(
            f"{row.where}: neither GitHub's shape (QUESTION, keyed by PMID) nor the Hub's (pubid, question); its keys "
            f"are {listed(list(value)[:6])}: read other data with class_path medqlora.data.JSONLines"
        )
    context = value.get("context")
    if not isinstance(context, dict):
        raise fields.bad(row, "context", context, "give an object with contexts, labels and meshes")
    flat = {**context, **{key: item for key, item in value.items() if key != "context"}}
    return _build(
        row, kind, "pubid", value["pubid"], flat, ("question", "contexts", "labels", "meshes", "long_answer")
    )


def _build(
    row: Row,
    kind: str,
    id_key: str,
    id_value: object,
    value: Mapping[str, Any],
    keys: tuple[str, str, str, str, str],
) -> Record:
    question, contexts, sections, meshes, long_answer = keys
    pmid = fields.identity(row, id_key, id_value)
    if not (pmid.isascii() and pmid.isdecimal()):
        raise fields.bad(row, id_key, id_value, "give a PMID")
    passages = fields.texts(row, contexts, value.get(contexts))
    names = fields.texts(row, sections, value.get(sections))
    # the automatic sets have rows without sections or with odd ones, and names are for display only
    if kind != "labeled" and len(names) != len(passages):
        names = ()
    if kind == "labeled" and not any(passage.strip() for passage in passages):
        raise fields.bad(row, contexts, value.get(contexts), "give the passages of the abstract")
    if names and len(names) != len(passages):
        raise fields.bad(row, sections, list(names), f"give a name to each of the {len(passages)} {contexts}")
    rationale = fields.text(row, long_answer, value.get(long_answer), needed=kind == "unlabeled")
    answer: str | None = None
    if kind != "unlabeled":
        answer = fields.one_of(row, "final_decision", value.get("final_decision"), YES_NO_MAYBE)
    preds = {name: _letters(value.get(f"{name}_pred")) for name in _PREDS}
    return Record(
        id=pmid,
        question=fields.text(row, question, value.get(question), needed=True),
        contexts=passages,
        context_labels=names,
        # without a decision, the conclusion itself is the answer
        labels=() if kind == "unlabeled" else YES_NO_MAYBE,
        answer=rationale if kind == "unlabeled" else answer,
        long_answer="" if kind == "unlabeled" else rationale,
        topics=fields.texts(row, meshes, value.get(meshes)),
        annotations={
            name: fields.one_of(row, f"{name}_pred", pred, YES_NO_MAYBE)
            for name, pred in preds.items()
            if not fields.is_missing(pred) and pred != []
        },
        where=row.where,
    )


def _letters(value: object) -> object:
    """The Hub has a pred as a list of its characters: ["y", "e", "s"]."""
    if isinstance(value, list) and value and all(isinstance(letter, str) for letter in value):
        return "".join(value)
    return value


def _hub(config: str, revision: str | None) -> list[Row]:
    if config == "pqa_labeled":
        file = DOWNLOAD.rsplit("/", 1)[1]
        option, fix = "--data.source.path", f"download {DOWNLOAD} and pass --data.source.path {file}"
    else:
        option = f"--data.source.{config.removeprefix('pqa_')}"
        fix = f"pass a local copy: {option} FILE"
    return read_hub(HUB, config, "train", revision, option, fix)
