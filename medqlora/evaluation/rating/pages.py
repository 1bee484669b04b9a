"""The blinded rating page, its key, and the section that a report gets."""

import base64
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from medqlora.errors import InputError
from medqlora.evaluation.rating.scores import ASPECTS, RatingScores
from medqlora.evaluation.report.markup import Markup, element, joined, table
from medqlora.evaluation.report.wording import p_value

#: around the section in a report, so that a later one takes its place
_BEGIN, _END = "<!-- human rating -->", "<!-- end of human rating -->"


@dataclass(frozen=True)
class RatingItem:
    """One question with the answers of both systems.

    Attributes:
        id: of the question.
        question, contexts: as the systems got them.
        answers: system → its answer, without its name and its confidence.
    """

    id: str
    question: str
    contexts: tuple[str, ...]
    answers: Mapping[str, str]


@dataclass(frozen=True)
class RatingKey:
    """Which answer is whose; raters must not see it.

    Attributes:
        page: digest of the page's content.
        systems: the two systems.
        orders: item → the systems in the order in which the page shows them.
    """

    page: str
    systems: tuple[str, str]
    orders: dict[str, tuple[str, str]]

    def to_json(self) -> dict[str, object]:
        return {
            "page": self.page,
            "systems": list(self.systems),
            "orders": {item: list(order) for item, order in self.orders.items()},
        }


def build_page(items: Sequence[RatingItem], systems: tuple[str, str], seed: int) -> tuple[str, RatingKey]:
    """The page, and its key.

    Questions are in a drawn order, and so are the two answers to each. The page holds no name of a system, and loads
    nothing.

    Args:
        items: with different ids.
        systems: the two systems' names, the first is the one that the differences are of.
        seed: of both orders.
    """
    draw = random.Random(seed)
    shuffled = list(items)
    draw.shuffle(shuffled)
    # each system is first equally often, but for one question
    firsts = [systems[number % 2] for number in range(len(shuffled))]
    draw.shuffle(firsts)
    orders: dict[str, tuple[str, str]] = {}
    shown = []
    for number, (item, first) in enumerate(zip(shuffled, firsts, strict=True), 1):
        second = systems[1] if first == systems[0] else systems[0]
        orders[str(number)] = (first, second)
        shown.append(
            {
                "item": str(number),
                "question": item.question,
                "contexts": list(item.contexts),
                "answers": [item.answers[first], item.answers[second]],
            }
        )
    data = json.dumps({"aspects": ASPECTS, "items": shown}, ensure_ascii=True)
    digest = hashlib.sha256(data.encode()).hexdigest()
    # "<" can't end the element that the data stand in
    escaped = data.replace("<", "\\u003c")
    folder = files("medqlora.evaluation.rating")
    script = folder.joinpath("page.js").read_text("utf-8")
    allowed = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    template = Template(folder.joinpath("page.html").read_text("utf-8"))
    page = template.substitute(data=escaped, script=script, hash=allowed, page=digest, count=len(shown))
    return page, RatingKey(digest, systems, orders)


def read_key(path: str) -> RatingKey:
    """The key that `build_page` made.

    Raises:
        InputError: it can't be read, or is none.
    """
    try:
        found = json.loads(Path(path).expanduser().read_text("utf-8"))
        first, second = found["systems"]
        orders = {str(item): (str(one), str(two)) for item, (one, two) in found["orders"].items()}
        page = str(found["page"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "it is no key of a rating page"
        raise InputError(
            f"--key {path}: can't be read ({reason}): pass the key.json of `rate build`"
        ) from error
    if any(set(order) != {first, second} for order in orders.values()):
        raise InputError(f"--key {path}: it is damaged: build the page again")
    return RatingKey(page, (str(first), str(second)), orders)


def score_section(scores: RatingScores) -> Markup:
    """The section of a report: a row for each aspect."""
    first, second = scores.systems
    rows = []
    for aspect, found in scores.aspects.items():
        rows.append(
            [
                aspect,
                _with_interval(found["means"][first], found["means_ci95"][first]),
                _with_interval(found["means"][second], found["means_ci95"][second]),
                _with_interval(found["difference"], found["difference_ci95"], signed=True),
                p_value(found["p"]),
                p_value(found["p_holm"]),
                "–" if found["alpha"] is None else f"{found['alpha']:.2f}",
            ]
        )
    head = ["aspect (1 to 5)", first, second, "difference", "p", "p, Holm", "alpha"]
    raters = len(scores.raters)
    told = (
        f"{raters} rater{'s' * (raters != 1)}, {scores.questions} questions, blinded. Means with 95% intervals "
        "(Student's t over questions); p of Wilcoxon's signed-rank test; alpha is Krippendorff's, ordinal: agreement "
        "beyond chance, 1 at most. Below 0.67 raters agree too little for conclusions."
    )
    return joined([element("h2", "Human rating"), table(head, rows), element("p", told, class_="small soft")])


def with_section(report: str, scores: RatingScores) -> str:
    """A report's page with the section at its end, in place of an earlier one.

    Raises:
        ValueError: it is no page of a report.
    """
    before, found, rest = report.partition(_BEGIN)
    if found:
        report = before + rest.partition(_END)[2].lstrip("\n")
    head, end, tail = report.rpartition("</main>")
    if not end:
        raise ValueError("no page of a report")
    return f"{head}{_BEGIN}\n{score_section(scores)}\n{_END}\n{end}{tail}"


def _with_interval(value: float, interval: Sequence[float] | None, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    shown = f"{value:{sign}.2f}"
    return shown if interval is None else f"{shown} ({interval[0]:{sign}.2f} to {interval[1]:{sign}.2f})"
