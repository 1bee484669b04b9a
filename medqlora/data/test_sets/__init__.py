"""Test questions of published benchmarks, as ids and hashes: no source may train on them.

Each .json file in this folder is one benchmark: its name, how its ids are compared, and `[words, tail, hash]`
(`fingerprint`) of each test question. No text of a question is shipped. To add a benchmark, write one file:

    from medqlora.data.test_sets import write_test_set
    questions = {pmid: row["QUESTION"] for pmid, row in json.load(open("ori_pqal.json")).items() if pmid in test}
    write_test_set(Path("medqlora/data/test_sets/pubmedqa.json"), "PubMedQA", "pmid", about, questions)

`tests/unit/data/test_test_sets.py` compares the shipped file with the real data where a copy is present.
"""

from medqlora.data.test_sets.rejection import (
    OPTION,
    added,
    recorded_counts,
    reject_test_questions,
    summary,
    told,
)
from medqlora.data.test_sets.search import Leak, by_id, find_leaks
from medqlora.data.test_sets.shipped import BenchmarkTest, fingerprint, shipped_test_sets, write_test_set

__all__ = [
    "OPTION",
    "BenchmarkTest",
    "Leak",
    "added",
    "by_id",
    "find_leaks",
    "fingerprint",
    "recorded_counts",
    "reject_test_questions",
    "shipped_test_sets",
    "summary",
    "told",
    "write_test_set",
]
