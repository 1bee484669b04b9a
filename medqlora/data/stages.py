"""What a verb needs of a source, read and checked in one place, whatever the source."""

import contextlib
from collections.abc import Callable, Sequence

from medqlora.data.sources.source import Source
from medqlora.data.test_sets import OPTION, reject_test_questions, summary, told
from medqlora.records import Record, Splits


def read_stages(
    source: Source,
    stages: Sequence[str],
    report: Callable[[str], None],
    *,
    allow_test_questions: bool = False,
) -> Splits:
    """Reads what `stages` need, says what the source left out, and refuses to learn from test questions.

    Args:
        source: where the records come from.
        stages: "train" and "dev" of `fit`, "dev" of `validate`, "dev" and "test" of `test`, "test" of `predict`.
        report: where to say it.
        allow_test_questions: warn of benchmarks' test questions among those to learn from, instead of refusing them.

    Raises:
        InputError: the source can't be read, or holds a test question where it may not.
    """
    with contextlib.suppress(AttributeError):  # a source of the user's own may be frozen
        source.checks_test_questions = False  # done below, for every source, and with the option
    needed, also = _needs(stages)
    splits = source.read_for(needed, also)
    for remark in source.remarks:
        report(remark)
    if "test" not in stages:
        learned: dict[str, Sequence[Record]] = {name: getattr(splits, name) for name in needed}
        if not allow_test_questions:
            reject_test_questions(learned)
        elif counts := summary(learned.get("train", ()), learned.get("dev", ())):
            report(
                f"WARNING: {told(counts)} ({OPTION} true): a test score on them means nothing, and the adapter's "
                "record and card say so"
            )
    return splits


def _needs(stages: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The splits that have to be whole, and those that are of use where they are there: the test set, to compare the
    training set with; for `test`, questions that the adapter did not learn, for the temperature."""
    if "train" in stages:
        return tuple(stages), tuple(name for name in Splits._fields if name not in stages)
    if "test" in stages:
        return ("test",), ("train", "dev") if "dev" in stages else ()
    return tuple(stages), ()
