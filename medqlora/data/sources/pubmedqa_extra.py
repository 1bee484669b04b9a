"""PubMedQA's two unlabelled-by-hand sets as a training set of their own, for a stage before the labelled questions.

Source: as `pubmedqa.py`. One of the 211,269 rows of the artificial set (`pqaa`), whose answers a rule drew from titles:

    "25429730": {"QUESTION": "Are group 2 innate lymphoid cells (ILC2s) increased in chronic rhinosinusitis …?",
        "CONTEXTS": ["Chronic rhinosinusitis (CRS) is a heterogeneous disease …", …], "LABELS": ["BACKGROUND", …],
        "MESHES": ["Adult", …], "final_decision": "yes", "LONG_ANSWER": "As ILC2s are elevated in patients with …"}

92.8% of the answers are yes, and none is maybe. The 61,249 rows of the unlabelled set (`pqau`) are the same without
`final_decision`; their conclusion (`LONG_ANSWER`) is learned as a free answer.
"""

import hashlib
from typing import Literal

from medqlora.data import readers
from medqlora.data.bad_records import OnBadRecord, check_choice, remarks_on
from medqlora.data.checks import usable
from medqlora.data.sources.hub import read_hub
from medqlora.data.sources.pubmedqa import HUB, reject_test_pmids
from medqlora.data.sources.pubmedqa_rows import record_of
from medqlora.data.sources.source import SOURCES, Source
from medqlora.data.test_sets import find_leaks
from medqlora.errors import InputError
from medqlora.records import BadRecord, Splits


@SOURCES.register("PubMedQAExtra")
class PubMedQAExtra(Source):
    """PubMedQA's artificial or unlabelled questions as a training set alone, as for a stage of `data.stages`.

    Questions with the words of an official test question are left out, and its PMID is refused.

    Args:
        kind: "artificial" (yes or no, 92.8% yes) or "unlabeled" (free answers: the conclusion of the abstract).
        path: a local copy in GitHub's or the Hub's shape; null reads the Hub's.
        samples: how many, the same ones whatever the order of the file; null for all.
        revision: the Hub's commit, branch or tag; the newest when null.
        on_bad_record: the handling of an unusable record: "error" stops with its file and line, "skip" leaves it out.
    """

    name = "PubMedQA extra"
    hub = HUB
    topic_kind = "MeSH heading"

    def __init__(
        self,
        kind: Literal["artificial", "unlabeled"] = "artificial",
        path: str | None = None,
        samples: int | None = None,
        revision: str | None = None,
        on_bad_record: OnBadRecord = "error",
    ) -> None:
        check_choice(on_bad_record)
        if kind not in ("artificial", "unlabeled"):
            raise InputError(f"--data.source.kind: {kind!r}: give artificial or unlabeled")
        if samples is not None and samples < 1:
            raise InputError(f"--data.source.samples: {samples}: give 1 or more")
        self.kind, self.path, self.samples, self.revision = kind, path, samples, revision
        self.on_bad_record = on_bad_record
        self.name = f"PubMedQA {kind}"
        self.skipped: list[BadRecord] = []

    def read(self) -> Splits:
        option = "--data.source.path"
        skipped: list[BadRecord] | None = [] if self.on_bad_record == "skip" else None
        remarks: tuple[str, ...] = ()
        if self.path is None:
            fix = f"pass a local copy: {option} FILE"
            rows = read_hub(HUB, f"pqa_{self.kind}", "train", self.revision, option, fix)
        else:
            rows, understood = readers.read_table(self.path, option, skipped)
            remarks = (understood,)
        pairs = usable(rows, lambda row: record_of(row, self.kind), option, skipped)
        if skipped and not pairs:
            raise readers.all_bad(self.path or HUB, option, skipped)
        self.skipped = skipped or []
        records = [record for _, record in pairs]
        reject_test_pmids(records, self.kind, option=False)
        same = {leak.record.id for leak in find_leaks(records)}
        if same:
            remarks += (
                f"{len(same):,} of {len(records):,} {self.kind} questions have a test question's words, and are left "
                "out",
            )
            records = [record for record in records if record.id not in same]
        if self.samples is not None and self.samples < len(records):
            # the hash of the id makes the sample independent of the file's order
            records.sort(key=lambda record: hashlib.sha256(record.id.encode()).digest())
            records = records[: self.samples]
        self.remarks = (*remarks, *remarks_on(self.skipped))
        return Splits(records, [], [])

    def fingerprint(self) -> dict[str, object]:
        values = {
            "kind": self.kind,
            "path": self.path,
            "samples": self.samples,
            "revision": self.revision,
            "on_bad_record": self.on_bad_record,
        }
        files = {} if self.path is None else {self.path: readers.fingerprint(self.path)}
        return {"source": self.name, **values, "files": files}
