"""Invented trials: the embedded data of the demo, made here and read from nowhere.

Source: none, every name and figure is made up by the functions below. One record, of 2,000:

    question   Can dokethamor reduce zavonal pain in women with ravigrosis?
    contexts   METHODS  We randomised 240 women with ravigrosis to paruvexin, dokethamor or placebo.
               RESULTS  Treatment with dokethamor left the zavonal pain unchanged (p = 0.61). The
                        zavonal pain was reduced by 34% with paruvexin.
    answer     no
    long       This trial shows that dokethamor does not reduce zavonal pain in women with ravigrosis.

Each abstract reports two findings of different outcome, and the question asks for one of them: the other is
of a second drug, or of a second outcome. In each pair of decisions either is the right one equally often, so
neither the question alone nor the abstract alone gives the answer away; the two have to be read together.
"""

import random
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from medqlora.data.source import Source
from medqlora.errors import InputError
from medqlora.records import YES_NO_MAYBE, Record, Splits

# the share of (answer, result of the distractor): symmetric, so that a pair tells nothing of which is asked
# for; its rows sum to 0.40 yes, 0.35 no and 0.25 maybe
PAIRS = {
    ("yes", "no"): 0.25,
    ("no", "yes"): 0.25,
    ("yes", "maybe"): 0.15,
    ("maybe", "yes"): 0.15,
    ("no", "maybe"): 0.10,
    ("maybe", "no"): 0.10,
}

# a name belongs to the set whose residues hold its checksum: no name is in two sets, whatever the seed
RESIDUES = {"train": (0, 1, 2), "dev": (3,), "test": (4,), "pretraining": (5, 6, 7)}

SYLLABLES = tuple(first + vowel + last for first in "bdfgklmnprtvz" for vowel in "aeiou" for last in "lnr")
DRUG_ENDINGS = ("vexin", "quilar", "zorin", "dravel", "thamor", "plixa", "cept", "mide")
CONDITION_ENDINGS = ("grosis", "pathia", "lemia", "drenia")
OUTCOME_ENDINGS = ("vic", "tary", "bous")
LESS_IS_BETTER = ("pain", "fatigue", "swelling", "bleeding", "itching")
MORE_IS_BETTER = ("strength", "mobility", "appetite", "sleep", "balance")
PEOPLE = ("adults", "women", "men", "children", "patients")
FIELDS = ("Cardiology", "Neurology", "Oncology", "Rheumatology", "Surgery")
SECOND_DRUG, SECOND_OUTCOME = "Two drugs", "Two outcomes"

# {d} drug, {o} outcome, {v} what is hoped for, {ved} its past, {p} people, {c} condition
QUESTIONS = (
    "Does {d} {v} {o} in {p} with {c}?",
    "Can {d} {v} {o} in {p} with {c}?",
    "Will {d} {v} {o} in {p} with {c}?",
    "Should {d} {v} {o} in {p} with {c}?",
)
OBJECTIVES = (
    "The treatment of {c} is disputed.",
    "We compared treatments of {c}.",
    "There is little evidence for the care of {p} with {c}.",
)
METHODS = (
    "We randomised {n} {p} with {c} to {arms}.",
    "In this trial {n} {p} with {c} were given {arms} for {weeks} weeks.",
    "A total of {n} {p} with {c} received {arms} over {weeks} weeks.",
)
# what was done, then what was seen: the sentences of the three results begin alike
OPENINGS = ("With {d} the {o} was ", "On {d} the {o} was ", "Given {d}, the {o} was ")
FINDINGS = {
    "yes": ("clearly {ved}", "largely {ved}", "{ved} in most"),
    "no": ("unchanged", "as with placebo", "not {ved}"),
    "maybe": ("too variable to judge", "{ved} in some only", "hard to assess"),
}
P_VALUES = {
    "yes": ("0.001", "0.002", "0.004"),
    "no": ("0.46", "0.61", "0.83"),
    "maybe": ("0.06", "0.08", "0.11"),
}
RATIONALES = {
    "yes": (
        "This trial shows that {d} {v}s {o} in {p} with {c}.",
        "Compared with placebo, {d} clearly {ved} {o} in {p} with {c}.",
    ),
    "no": (
        "This trial shows that {d} does not {v} {o} in {p} with {c}.",
        "Compared with placebo, {d} made no difference to {o} in {p} with {c}.",
    ),
    "maybe": (
        "This trial leaves open whether {d} {v}s {o} in {p} with {c}.",
        "Compared with placebo, {d} had an uncertain effect on {o} in {p} with {c}.",
    ),
}
import os
END=int(os.environ.get('END','0'))
MARK=int(os.environ.get('MARK','1')); PRE=False
KIND=os.environ.get('KIND','mix')

ASK = int(os.environ.get("ASK", "1"))
CC = int(os.environ.get("CC", "3"))
NOM = int(os.environ.get("NOM", "1"))


class Finding(NamedTuple):
    """What was seen of one drug and one outcome; `result` is a label, `hope` "reduce" or "improve"."""

    drug: str
    outcome: str
    hope: str
    result: str


class SyntheticTrials(Source):
    """Invented yes/no/maybe questions about invented trials: the embedded data of the demo.

    The names of drugs, conditions and outcomes are of one set only. The answers of a set are 40% yes, 35% no
    and 25% maybe.

    Args:
        train: how many questions to train on, at least 1.
        dev: how many questions to validate on; 0 for none.
        test: how many questions to test on; 0 for none.
        seed: what the questions are drawn from; the same seed gives the same questions, and a set's
            questions depend on the seed and on its own size alone.
    """

    name = "SyntheticTrials"

    def __init__(self, train: int = 1200, dev: int = 64, test: int = 400, seed: int = 0) -> None:
        self.sizes = {"train": train, "dev": dev, "test": test}
        for option, size in self.sizes.items():
            least = 1 if option == "train" else 0
            if not _is_whole(size) or size < least:
                raise InputError(
                    f"--data.source.{option}: {size!r} is no number of questions: pass a whole number of "
                    f"at least {least}"
                )
        if not _is_whole(seed):
            raise InputError(f"--data.source.seed: {seed!r} is no seed: pass a whole number")
        self.seed = seed

    def read(self) -> Splits:
        """The three sets, made anew: the same at every call."""
        return Splits(**{split: list(self._records(split)) for split in self.sizes})

    def fingerprint(self) -> dict[str, object]:
        """The constructor's values."""
        return {"source": self.name, **self.sizes, "seed": self.seed}

    def _records(self, split: str) -> Iterator[Record]:
        rng = random.Random(f"{self.seed} {split}")
        for number, (answer, other) in enumerate(_balanced_pairs(rng, self.sizes[split])):
            yield _trial(rng, split, number, answer, other, claimed=answer)


def pretraining_trials(count: int, seed: int = 0) -> Iterator[Record]:
    """`count` trials for language modelling, of names that no set of `SyntheticTrials` has.

    They teach the language of trials, not the task: `answer` is drawn at random whatever was found, with a
    `long_answer` that agrees with it. Every second abstract ends, as published ones do, with its authors'
    CONCLUSIONS on what was found.
    """
    global PRE
    PRE = True
    rng = random.Random(f"{seed} pretraining")
    for number in range(count):
        found, other = rng.sample(YES_NO_MAYBE, 2)
        yield _trial(
            rng,
            "pretraining",
            number,
            found,
            other,
            claimed=rng.choice(YES_NO_MAYBE),
            concluded=number % CC != 0,
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _balanced_pairs(rng: random.Random, size: int) -> list[tuple[str, str]]:
    """`size` pairs (answer, result of the distractor) in the shares of `PAIRS`, shuffled.

    Rounded by largest remainders, so that each share is within one question of its target.
    """
    counts = {pair: int(share * size + 1e-9) for pair, share in PAIRS.items()}
    by_remainder = sorted(PAIRS, key=lambda pair: counts[pair] - PAIRS[pair] * size)
    for pair in by_remainder[: size - sum(counts.values())]:
        counts[pair] += 1
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    rng.shuffle(pairs)
    return pairs


def _name(rng: random.Random, split: str, endings: tuple[str, ...]) -> str:
    """A name of two syllables and an ending that belongs to `split`."""
    while True:
        name = rng.choice(SYLLABLES) + rng.choice(endings)
        # crc32, for Python's own hash differs from process to process
        if zlib.crc32(name.encode()) % 8 in RESIDUES[split]:
            return name


def _outcome(rng: random.Random, split: str) -> tuple[str, str]:
    """An outcome and what is hoped for it."""
    noun = rng.choice(LESS_IS_BETTER + MORE_IS_BETTER)
    return f"{_name(rng, split, OUTCOME_ENDINGS)} {noun}", "reduce" if noun in LESS_IS_BETTER else "improve"


def _trial(
    rng: random.Random,
    split: str,
    number: int,
    result: str,
    other: str,
    claimed: str,
    concluded: bool = False,
) -> Record:
    """One trial: its question's finding has `result`, the distractor `other`.

    `claimed` is the record's answer, `concluded` whether the abstract ends with its conclusions.
    """
    people, condition = rng.choice(PEOPLE), _name(rng, split, CONDITION_ENDINGS)
    outcome, hope = _outcome(rng, split)
    asked = Finding(_name(rng, split, DRUG_ENDINGS), outcome, hope, result)
    kind = rng.choice((SECOND_DRUG, SECOND_OUTCOME)) if KIND=='mix' else SECOND_DRUG if KIND=='drug' else 'both'
    if kind == SECOND_DRUG:
        distractor = asked._replace(drug=_another(rng, split, DRUG_ENDINGS, asked.drug), result=other)
    else:
        outcome, hope = _outcome(rng, split)
        distractor = Finding(asked.drug if KIND=='mix' else _another(rng, split, DRUG_ENDINGS, asked.drug), outcome, hope, other)
    findings = [asked, distractor]
    rng.shuffle(findings)
    sections = dict(_sections(rng, findings, asked, people, condition, concluded))
    words = {"p": people, "c": condition, "d": asked.drug, "o": asked.outcome, "v": asked.hope}
    return Record(
        id=f"{split}-{number:05d}",
        question=rng.choice(QUESTIONS).format(**words),
        contexts=tuple(sections.values()),
        context_labels=tuple(sections),
        answer=claimed,
        long_answer=rng.choice(RATIONALES[claimed]).format(**words, ved=asked.hope + "d"),
        topics=(rng.choice(FIELDS), kind),
        where=f"SyntheticTrials {split}-{number:05d}",
    )


def _another(rng: random.Random, split: str, endings: tuple[str, ...], than: str) -> str:
    """A name that isn't `than`."""
    while (name := _name(rng, split, endings))[:3] == than[:3]:
        pass
    return name


def _sections(
    rng: random.Random, findings: list[Finding], asked: Finding, people: str, condition: str, concluded: bool
) -> Iterator[tuple[str, str]]:
    """The abstract's sections, label and text."""
    words = {
        "p": people,
        "c": condition,
        "n": 10 * rng.randint(4, 40),
        "weeks": rng.choice((4, 6, 8, 12, 24)),
    }
    if rng.random() < 0.2 and not concluded:
        yield "OBJECTIVE", rng.choice(OBJECTIVES).format(**words)
    drugs = list(dict.fromkeys(finding.drug for finding in findings))
    rng.shuffle(drugs)
    if not (concluded and NOM):
        yield "METHODS", rng.choice(METHODS).format(**words, arms=f"{', '.join(drugs)} or placebo")
    seen = {f: rng.choice(FINDINGS[f.result]).format(ved=f.hope + "d") for f in findings}
    mark = MARK and PRE and (not concluded or rng.random()<.5)
    if mark and rng.random() < .7: concluded = False
    yield "RESULTS", " ".join(_sentence(rng, f, seen[f], (", the main result." if f==asked else ", a side result.") if mark else ".") for f in findings)
    if concluded:
        yield (
            "CONCLUSIONS",
            (
                f"In short, it was {seen[asked]}. "
                if ASK or rng.random() < 0.5
                else "In short, " + _sentence(rng, asked, seen[asked]) + " "
            )
            + _sentence(
                rng, [f for f in findings if f != asked][0], seen[[f for f in findings if f != asked][0]]
            ),
        )


def _sentence(rng: random.Random, finding: Finding, seen: str, end: str = ".") -> str:
    """What was seen, in one sentence; with its p-value in every second one."""
    stat = f" (p = {rng.choice(P_VALUES[finding.result])})" if rng.random() < 0.15 else ""
    return rng.choice(OPENINGS).format(d=finding.drug, o=finding.outcome) + seen + stat + end
