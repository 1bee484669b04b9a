"""What a number of validation questions can calibrate. Imports nothing heavy: `ask` reads it before any model."""

import math

#: with fewer validation questions neither temperature nor threshold is reliable
FEWEST = 20
#: of the normal distribution, for 95%
_Z = 1.959964


def too_few(n: int, classes: int) -> str | None:
    """Why `n` validation questions with `classes` different answers calibrate nothing, as a clause; None if they do."""
    if n < FEWEST:
        return f"{n} validation question{'s' * (n != 1)} are too few, {FEWEST} are the least"
    return "all validation questions had the same answer" if classes < 2 else None


def margin(n: int) -> float:
    """Half the 95% interval of an accuracy of 50% on `n` questions, a share: the widest there is."""
    return min(0.5, _Z * 0.5 / math.sqrt(n))


def least_risk_shown(n: int) -> float:
    """The upper end of Wilson's 95% interval where none of `n` answers is wrong, a share."""
    return _Z**2 / (n + _Z**2)


def limits(n: int, classes: int, target_risk: float) -> str | None:
    """What a validation set can't show, as a sentence; None where it is large enough for the target.

    Args:
        n: its questions.
        classes: different right answers among them.
        target_risk: the share of wrong answers to allow, 0 to 1.
    """
    why = too_few(n, classes)
    if why is not None:
        return (
            f"Confidence can't be calibrated: {why}; the temperature stays 1 and its threshold shows nothing."
        )
    needed = math.ceil(_Z**2 * (1 - target_risk) / target_risk) if target_risk > 0 else None
    if needed is not None and n >= 2 * needed and margin(n) < 0.05:
        return None
    accuracy = f"{n} validation questions show accuracy to ±{100 * margin(n):.0f} points"
    if needed is None:
        return f"{accuracy}; no number of them shows a risk of 0%."
    if n < needed:
        return (
            f"{accuracy}, and can't show at most {target_risk:.0%} wrong: even without an error {n} answers leave "
            f"{least_risk_shown(n):.0%} possible ({needed} are the least)."
        )
    return (
        f"{accuracy}; a threshold for at most {target_risk:.0%} wrong is shown by {needed} answers without an error, "
        "and by more with errors."
    )
