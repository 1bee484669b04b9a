"""Drawn chest radiographs with a question: the embedded images of the demo.

Source: none; `data.images.radiograph` draws every picture. One record:

    question   Does the radiograph show an opacity?
    images     a PNG of 64 x 64 pixels, in the cache folder
    answer     yes
    long       One lung is opaque.

Only the picture holds the answer: the same questions are asked with either answer, equally often.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import replace

from medqlora.data.images.radiograph import LUNGS, draw_radiograph
from medqlora.data.sources.source import SOURCES, Source
from medqlora.errors import InputError
from medqlora.records import ImageFile, Record, Splits

LABELS = ("yes", "no")
_QUESTIONS = (
    "Does the radiograph show an opacity?",
    "Is there an opacity in the lungs?",
    "Is one of the lungs opaque?",
)
#: short, and the same for every picture, as `SyntheticTrials` has them
_RATIONALES = {"yes": "One lung is opaque.", "no": "Both lungs are clear."}


@SOURCES.register("SyntheticRadiographs")
class SyntheticRadiographs(Source):
    """Drawn chest radiographs with yes/no questions: the embedded images of the demo.

    Half of the answers are yes. The opacity lies in either lung.

    Args:
        train: how many questions to train on.
        dev: how many to validate on; 0 for none.
        test: how many to test on.
        seed: another seed draws other pictures of the same kind.
    """

    name = "SyntheticRadiographs"
    invented = True
    topic_kind = "finding"

    def __init__(self, train: int = 1200, dev: int = 64, test: int = 200, seed: int = 0) -> None:
        for option, value, least in (("train", train, 1), ("dev", dev, 0), ("test", test, 1)):
            if value < least:
                raise InputError(f"--data.source.{option} is {value}: it has to be at least {least}")
        self.train, self.dev, self.test = train, dev, test
        self.seed = seed

    def read(self) -> Splits:
        counts = {"train": self.train, "dev": self.dev, "test": self.test}
        return Splits(*(list(radiographs(split, count, self.seed)) for split, count in counts.items()))

    def fingerprint(self) -> dict[str, object]:
        counts = {"train": self.train, "dev": self.dev, "test": self.test}
        return {"source": self.name, **counts, "seed": self.seed}


def radiographs(split: str, count: int, seed: int) -> Iterator[Record]:
    """The questions of a set, half of them with the answer yes."""
    rng = random.Random(f"{seed}/{split}/radiographs")
    answers = [LABELS[number % 2] for number in range(count)]
    rng.shuffle(answers)
    for number, answer in enumerate(answers):
        lung = rng.choice(tuple(LUNGS)) if answer == "yes" else None
        yield Record(
            id=f"{split}-{number:05d}",
            question=rng.choice(_QUESTIONS),
            labels=LABELS,
            answer=answer,
            long_answer=_RATIONALES[answer],
            topics=(f"{lung} lung" if lung else "no opacity",),
            where=f"SyntheticRadiographs {split} {number}",
            images=(_picture(lung, split, number, seed),),
        )


def pretraining_radiographs(count: int, seed: int = 0) -> Iterator[Record]:
    """Pictures to pretrain the demo's base, which no set has, with answers that are drawn at random."""
    rng = random.Random(f"{seed}/pretraining answers")
    for record in radiographs("pretraining", count, seed):
        answer = rng.choice(LABELS)
        yield replace(record, answer=answer, long_answer=_RATIONALES[answer])


def _picture(opacity: str | None, split: str, number: int, seed: int) -> ImageFile:
    from io import BytesIO

    import numpy as np
    from PIL import Image

    from medqlora.data.images import stored_image

    # a picture of its own for each set, seed and number
    generator = np.random.default_rng([zlib.crc32(f"{seed}/{split}".encode()), number])
    stream = BytesIO()
    Image.fromarray(draw_radiograph(opacity, generator)).save(stream, "PNG", compress_level=1)
    return stored_image(stream.getvalue(), f"SyntheticRadiographs {split} {number}")
