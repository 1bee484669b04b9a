"""Invented trials: the embedded data of the demo, generated here.

Source: none; this file generates every name and figure. One record:

    question   Does zalotrevin reduce morvic pain in adults with belgrosis?
    contexts   METHODS  We randomised 240 adults with belgrosis to zalotrevin or placebo.
               RESULTS  Side effects were rare. The morvic pain was unchanged (p = 0.61).
    answer     no
    long       It did no better than placebo.

With `difficulty` the same abstract says more than the answer needs:

    contexts   METHODS  We randomised 240 adults with belgrosis to mivquilar, zalotrevin or placebo.
               RESULTS  In the mivquilar arm it was clearly reduced. The morvic pain was not clearly reduced.
                        Besides, the lantary fatigue was too variable to judge.

The question does not reveal the answer, and no name of a drug, condition or outcome is in two sets. So a model can only
learn to read the findings of an abstract.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import replace

from medqlora.data.folds import FOLDS, stratified_folds
from medqlora.data.sources.source import SOURCES, Source
from medqlora.errors import InputError
from medqlora.records import YES_NO_MAYBE, Record, Splits

#: the share of each answer in a set
SHARES = {"yes": 0.40, "no": 0.35, "maybe": 0.25}

#: a name belongs to the set that has its checksum's residue: no name is in two sets, whatever the seed
_RESIDUES = {"train": (0, 1, 2), "dev": (3,), "test": (4,), "pretraining": (5, 6, 7)}

_SYLLABLES = tuple(first + vowel + last for first in "bdfgklmnprtvz" for vowel in "aeiou" for last in "lnr")
_DRUGS = ("trevin", "quilar", "zorin", "dravel", "thamor", "plixa", "cept", "mide")
_CONDITIONS = ("grosis", "pathia", "lemia", "drenia")
_OUTCOMES = ("vic", "tary", "bous")
_SIGNS = ("pain", "fatigue", "swelling", "bleeding", "itching")
_PEOPLE = ("adults", "women", "men", "children", "patients")
_FIELDS = ("Cardiology", "Neurology", "Oncology", "Rheumatology", "Surgery")
_ASKED = ("Does", "Can", "Will")

_METHODS = (
    "We randomised {n} {p} with {c} to {d} or placebo.",
    "In this trial {n} {p} with {c} were given {d} or placebo.",
    "A total of {n} {p} with {c} received {d} or placebo.",
)
_FINDINGS = {
    "yes": ("clearly reduced", "markedly lower", "largely relieved"),
    "no": ("unchanged", "as with placebo", "not affected"),
    "maybe": ("too variable to judge", "hard to assess", "lower in some"),
}
#: `difficulty` 2: the same findings by what they are not
_NEGATED = {
    "yes": ("not unchanged but lower", "no longer as with placebo", "not common but clearly reduced"),
    "no": ("not clearly reduced", "not markedly lower", "not largely relieved"),
    "maybe": ("neither reduced nor unchanged", "not the same in all", "not possible to judge"),
}
_ARMS = (
    "We randomised {n} {p} with {c} to {d}, {other} or placebo.",
    "In this trial {n} {p} with {c} were given {d}, {other} or placebo.",
)
#: share of the abstracts, and of the findings, that each step of `difficulty` makes harder
_HARDER = 0.3
#: steps of `difficulty`: each adds to those before
DIFFICULTIES = {1: "another arm", 2: "findings by negation", 3: "another outcome of the same drug"}
_SIDE_EFFECTS = ("rare", "mild", "common", "severe")
_P_VALUES = {
    "yes": ("0.001", "0.002", "0.004"),
    "no": ("0.46", "0.61", "0.83"),
    "maybe": ("0.06", "0.08", "0.11"),
}
#: short, and the same for every trial: copied names would be most of the loss, and a base model of this size would
#: spend its steps on them instead of on the answer
_RATIONALES = {
    "yes": "It did better than placebo.",
    "no": "It did no better than placebo.",
    "maybe": "This stayed open.",
}


@SOURCES.register("SyntheticTrials")
class SyntheticTrials(Source):
    """Invented yes/no/maybe questions about invented trials: the embedded data of the demo.

    The names of drugs, conditions and outcomes belong to one set only. The answers of a set are 40% yes, 35%
    no and 25% maybe.

    Args:
        train: how many questions to train on.
        dev: how many to validate on; 0 for none.
        test: how many to test on.
        seed: another seed gives other questions of the same kind.
        difficulty: 0 to 3: 1 adds another drug's arm with another result to 30% of the abstracts; 2 also states 30% of
            the findings by negation; 3 also adds another outcome with another result to 30% of the abstracts.
        fold: with a number from 0 to 9 the questions of `train` and `dev` together are cut into ten folds with equal
            shares of the answers: this one is validated on, and the other nine are trained on. A name may then be in
            both sets, and `dev` is no size any more.
    """

    name = "SyntheticTrials"
    invented = True

    def __init__(
        self,
        train: int = 1200,
        dev: int = 64,
        test: int = 400,
        seed: int = 0,
        difficulty: int = 0,
        fold: int | None = None,
    ) -> None:
        for option, value, least in (("train", train, 1), ("dev", dev, 0), ("test", test, 1)):
            if value < least:
                raise InputError(f"--data.source.{option} is {value}: it has to be at least {least}")
        if not 0 <= difficulty <= max(DIFFICULTIES):
            raise InputError(f"--data.source.difficulty is {difficulty}: give 0 to {max(DIFFICULTIES)}")
        self.train, self.dev, self.test = train, dev, test
        if fold is not None and (
            isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < FOLDS
        ):
            raise InputError(
                f"--data.source.fold: {fold!r} is no fold: give 0 to {FOLDS - 1}, or null for none"
            )
        if fold is not None and train + dev < FOLDS:
            raise InputError(
                f"--data.source.train and dev are {train} and {dev}: {FOLDS} folds need {FOLDS} questions"
            )
        self.seed, self.difficulty, self.fold = seed, difficulty, fold

    def read(self) -> Splits:
        counts = {"train": self.train, "dev": self.dev, "test": self.test}
        train, dev, test = (
            list(_trials(split, count, self.seed, self.difficulty)) for split, count in counts.items()
        )
        if self.fold is not None:
            development = [*train, *dev]
            dev = stratified_folds(development, FOLDS, self.seed)[self.fold]
            held_out = {record.id for record in dev}
            train = [record for record in development if record.id not in held_out]
        return Splits(train, dev, test)

    def fingerprint(self) -> dict[str, object]:
        counts = {"train": self.train, "dev": self.dev, "test": self.test}
        # left out where unset: runs before these options go on
        folded = {} if self.fold is None else {"fold": self.fold}
        harder = {"difficulty": self.difficulty} if self.difficulty else {}
        return {"source": self.name, **counts, "seed": self.seed, **harder, **folded}


def pretraining_trials(count: int, seed: int = 0) -> Iterator[Record]:
    """Trials to pretrain the demo's base model, with names that no set has and random answers.

    Answer and rationale are independent of the findings, so the base model learns the form of an answer only.
    """
    rng = random.Random(f"{seed}/pretraining answers")
    for record in _trials("pretraining", count, seed):
        answer = rng.choice(YES_NO_MAYBE)
        yield replace(record, answer=answer, long_answer=_RATIONALES[answer])


def _trials(split: str, count: int, seed: int, difficulty: int = 0) -> Iterator[Record]:
    rng = random.Random(f"{seed}/{split}")
    answers = [answer for answer, share in SHARES.items() for _ in range(round(share * count))][:count]
    answers += ["yes"] * (count - len(answers))
    rng.shuffle(answers)
    for number, answer in enumerate(answers):
        trial = _trial(rng, split, number, answer)
        yield trial if not difficulty else _harder(rng, split, trial, difficulty)


def _trial(rng: random.Random, split: str, number: int, answer: str) -> Record:
    people, condition = rng.choice(_PEOPLE), _name(rng, split, 1, _CONDITIONS)
    drug = _name(rng, split, 2, _DRUGS)
    outcome = f"{_name(rng, split, 1, _OUTCOMES)} {rng.choice(_SIGNS)}"
    words = {"n": 10 * rng.randint(4, 40), "p": people, "c": condition, "d": drug}
    results = [
        f"The {outcome} was {_finding(rng, answer)}.",
        f"Side effects were {rng.choice(_SIDE_EFFECTS)}.",
    ]
    rng.shuffle(results)
    return Record(
        id=f"{split}-{number:05d}",
        question=f"{rng.choice(_ASKED)} {drug} reduce {outcome} in {people} with {condition}?",
        contexts=(rng.choice(_METHODS).format(**words), " ".join(results)),
        context_labels=("METHODS", "RESULTS"),
        answer=answer,
        long_answer=_RATIONALES[answer],
        topics=(rng.choice(_FIELDS),),
        where=f"SyntheticTrials {split} {number}",
    )


def _harder(rng: random.Random, split: str, trial: Record, difficulty: int) -> Record:
    """The trial with an abstract that also tells what was not asked, each time with another result."""
    words = trial.question.split()
    people, condition, drug, outcome = words[-3], words[-1].rstrip("?"), words[1], " ".join(words[3:5])
    answer = str(trial.answer)
    different = [result for result in YES_NO_MAYBE if result != answer]
    negated = difficulty >= 2
    methods, results = trial.contexts[0], [f"The {outcome} was {_finding(rng, answer, negated)}."]
    if rng.random() < _HARDER:
        other = _name(rng, split, 2, _DRUGS)
        results.append(f"In the {other} arm it was {_finding(rng, rng.choice(different), negated)}.")
        first, second = rng.sample((drug, other), 2)
        number = 10 * rng.randint(4, 40)
        methods = rng.choice(_ARMS).format(n=number, p=people, c=condition, d=first, other=second)
    if difficulty >= 3 and rng.random() < _HARDER:
        unasked = f"{_name(rng, split, 1, _OUTCOMES)} {rng.choice(_SIGNS)}"
        results.append(f"Besides, the {unasked} was {_finding(rng, rng.choice(different), negated)}.")
    if len(results) == 1:
        results.append(f"Side effects were {rng.choice(_SIDE_EFFECTS)}.")
    rng.shuffle(results)
    return replace(trial, contexts=(methods, " ".join(results)))


def _finding(rng: random.Random, result: str, negated: bool = False) -> str:
    if negated and rng.random() < _HARDER:
        return rng.choice(_NEGATED[result])
    finding = rng.choice(_FINDINGS[result])
    return f"{finding} (p = {rng.choice(_P_VALUES[result])})" if rng.random() < 0.3 else finding


def _name(rng: random.Random, split: str, syllables: int, endings: tuple[str, ...]) -> str:
    """An invented name that belongs to `split`."""
    while True:
        name = "".join(rng.choice(_SYLLABLES) for _ in range(syllables)) + rng.choice(endings)
        if zlib.crc32(name.encode()) % 8 in _RESIDUES[split]:
            return name
