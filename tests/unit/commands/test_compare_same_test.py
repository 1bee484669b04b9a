"""A fit and the test of its adapter, compared."""

from dataclasses import replace

from medqlora.artifacts.run_summary import Decided, RunSummary
from medqlora.commands.compare import paired


def test_a_fit_and_its_own_test_are_said_to_be_one() -> None:
    answers = {str(number): Decided("yes", "yes" if number else "no", None) for number in range(4)}
    fit = RunSummary("logs/version_0", "fit", dataset="PubMedQA", answers=answers, tested="logs/version_1")
    test = replace(fit, name="logs/version_1", kind="test")
    other = replace(fit, name="logs/version_2", tested="logs/version_3")
    same = "logs/version_1 and logs/version_0 have one test, logs/version_1: it is compared with itself."
    again = "logs/version_5 and logs/version_0 have one test, logs/version_1: it is compared with itself."
    assert paired([fit, test, other])[1] == [same]
    assert paired([fit, test, replace(fit, name="logs/version_5")])[1] == [same, again]
    assert paired([fit, other])[1] == []
