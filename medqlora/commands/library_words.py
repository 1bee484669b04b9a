"""What is known of an adapter of a library, in words."""

from collections.abc import Mapping
from typing import SupportsFloat

from medqlora.utils.cache import base_words


def shown_entry(plain: Mapping[str, object]) -> dict[str, str]:
    """Field → text, of an entry's plain values."""
    worded = {"base": _base, "calibration": _calibration, "test": _test, "compared": _compared}
    shown = {key: worded[key](value) if key in worded else _text(value) for key, value in plain.items()}
    if plain.get("general"):
        shown["compared"] = "the others are compared with this one"
    return shown


def _base(value: object) -> str:
    return base_words(str(value))


def _calibration(value: object) -> str:
    found = _known(value)
    threshold, n = found.get("threshold"), found.get("n")
    if not isinstance(threshold, SupportsFloat):
        return "none: the confidence was not compared with validation questions"
    learned = f"learned on {n} validation questions"
    if float(threshold) > 1:
        return f"every answer is marked as uncertain: no confidence was high enough ({learned})"
    return f"an answer is marked as uncertain below a confidence of {float(threshold):.0%} ({learned})"


def _test(value: object) -> str:
    found = _known(value)
    if not found:
        return "none: no test lay beside the adapter's run when it was added"
    name = " ".join(str(found[key]) for key in ("dataset", "split") if key in found)
    interval = found.get("accuracy_ci95")
    between = ""
    if isinstance(interval, (list, tuple)) and len(interval) == 2:
        between = f" (95% interval {_percent(interval[0])} to {_percent(interval[1])})"
    return (
        f"accuracy {_percent(found.get('accuracy'))}{between}, macro-F1 {_percent(found.get('macro_f1'))}, on "
        f"{found.get('n', '?')} questions of {name or 'an unnamed set'}: {found.get('report', '')}"
    )


def _compared(value: object) -> str:
    found = _known(value)
    if not found:
        return "none: `medqlora library compare` compares it with the general adapter, on test questions of its topics"
    p = found.get("mcnemar_p_holm")
    shown = f", p {float(p):.3f}" if isinstance(p, SupportsFloat) else ""
    difference = found.get("difference")
    points = f"{100 * float(difference):+.1f} points" if isinstance(difference, SupportsFloat) else "–"
    return (
        f"{points} of accuracy against the general adapter, on {found.get('n', '?')} questions of its topics in "
        f"{found.get('dataset', '?')}{shown}: {found.get('verdict', '')}"
    )


def _known(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _percent(value: object) -> str:
    return f"{float(value):.1%}" if isinstance(value, SupportsFloat) else "–"


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
