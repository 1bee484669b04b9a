"""Near-duplicates: found by a full comparison too, and nothing else is."""

import itertools
import random
import re

from medqlora.evaluation.near_duplicates import SIMILAR, near_duplicates
from medqlora.records import Record

WORDS = [f"word{number}" for number in range(400)]


def runs(record: Record) -> set[tuple[str, ...]]:
    found = set()
    for text in (record.question, " ".join(record.contexts)):
        words = re.findall(r"\w+", text.casefold())
        found |= {tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2)) if words}
    return found


def drawn(seed: int) -> list[Record]:
    """Random texts, and for some of them a copy with a few other words."""
    draw = random.Random(seed)
    records = []
    for number in range(60):
        words = draw.choices(WORDS, k=draw.randint(5, 60))
        records.append(Record(str(number), " ".join(words[:9]), (" ".join(words[9:]),)))
        if number % 3 == 0:
            changed = [word if draw.random() > 0.08 else draw.choice(WORDS) for word in words]
            records.append(Record(f"{number}b", " ".join(changed[:9]), (" ".join(changed[9:]),)))
    return records


def test_the_pairs_are_those_of_a_comparison_of_all_with_all() -> None:
    for seed in range(3):
        records = drawn(seed)
        wanted = set()
        for first, second in itertools.combinations(range(len(records)), 2):
            left, right = runs(records[first]), runs(records[second])
            same = records[first].question == records[second].question
            same = same and records[first].contexts == records[second].contexts
            if not same and len(left & right) / len(left | right) >= SIMILAR:
                wanted.add((first, second))
        assert wanted  # some copies are close enough
        assert {(pair.first, pair.second) for pair in near_duplicates(records)} == wanted


def test_equal_texts_and_common_phrases_are_no_pairs() -> None:
    equal = [Record("1", "Does it help in adults?"), Record("2", "does it HELP in  adults?")]
    assert near_duplicates(equal) == []
    phrase = "In patients with acute disease of the heart the drug"
    common = [
        Record(str(n), f"{phrase} {WORDS[n]} {' '.join(WORDS[n : n + 30])}?") for n in range(0, 350, 35)
    ]
    assert near_duplicates(common) == []
    assert near_duplicates([]) == []
